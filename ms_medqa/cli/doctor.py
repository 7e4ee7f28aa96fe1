"""Check this machine: versions, devices, whether MindSpore computes, and every known trap with its fix."""

from __future__ import annotations

import argparse

from ms_medqa.config.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The doctor takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print a table and the findings; 1 when something that every run needs is broken."""
    from ms_medqa.launch.checks import diagnose
    from ms_medqa.launch.environment import gather, summary

    facts = gather()
    rows = summary(facts)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        say(f"{name:<{width}}{value}")
    if facts.npu_info:
        say(f"\n{facts.npu_info.rstrip()}")
    findings = diagnose(facts)
    say("")
    for finding in findings:
        say(f"{finding.level}: {finding.problem}\n  fix: {finding.fix}")
    broken = sum(finding.level == "broken" for finding in findings)
    say("nothing is broken" if not broken else f"{broken} broken: see the fix below each line")
    return 1 if broken else 0
