"""Check this machine: versions, devices, whether MindSpore computes, and every known trap with its fix."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The doctor takes no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print a table and the findings; 1 when something that every run needs is broken."""
    from ms_medqa.launch.checks import diagnose
    from ms_medqa.launch.environment import gather, summary

    # Printed and not said: with a RANK_ID left over in the shell, which is one of the traps, `say` is silent.
    facts = gather()
    rows = summary(facts)
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        print(f"{name:<{width}}{value}")
    if facts.npu_info:
        print(f"\n{facts.npu_info.rstrip()}")
    findings = diagnose(facts)
    print("")
    for finding in findings:
        print(f"{finding.level}: {finding.problem}\n  fix: {finding.fix}")
    broken = sum(finding.level == "broken" for finding in findings)
    print("nothing is broken" if not broken else f"{broken} broken: see the fix below each line")
    return 1 if broken else 0
