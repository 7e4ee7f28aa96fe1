"""`ms-medqa ask` at a terminal: Ctrl-C during an answer and at the question of a dialogue."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny

# Sampled, the tiny model goes on to the last token that it may make.
ENDLESS = ["generate.temperature=5", "generate.top_k=0", "generate.top_p=1", "--max-new-tokens", "220"]


class Terminal:
    """`ms-medqa ask` at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "ms_medqa.cli.main", "ask", "--model", str(tiny.folder()), *arguments]
        self._here, there = pty.openpty()
        # Without kept graphs, whose answers may be done before a key is pressed.
        environment = os.environ | {"MS_MEDQA_GRAPHS": "off"}
        self.process = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=environment, preexec_fn=_take_terminal
        )
        os.close(there)
        self._read = ""

    def until(self, text: str, seconds: float = 120) -> str:
        """What is shown up to and with `text`."""
        end = time.monotonic() + seconds
        while text not in self._read:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} in {self._read!r}"
            if select.select([self._here], [], [], left)[0]:
                self._read += os.read(self._here, 65536).decode(errors="replace")
        shown, _, self._read = self._read.partition(text)
        return shown + text

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._here, text.encode())


def _take_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # The tests may run in the background of a shell, where SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_an_answer_then_the_dialogue_goes_on_and_at_the_question_it_ends() -> None:
    terminal = Terminal("--interactive", *ENDLESS)
    with terminal.process as process:
        try:
            terminal.until("/quit ends")
            terminal.until("> ")
            # While graphs are compiled, and in the midst of the tokens.
            terminal.type("What?\n")
            terminal.until("What?")
            time.sleep(0.5)
            terminal.type("\x03")
            assert "stopped; this turn is forgotten" in terminal.until("\n> ")
            terminal.type("one\n")
            assert "prompt " in terminal.until("tokens/s")
            terminal.until("> ")
            # Python shows the question before it waits for keys; a signal in between waits for the next key.
            time.sleep(0.5)
            terminal.type("\x03")
            terminal.until("ms-medqa ask: interrupted")
            assert process.wait(30) == 128 + signal.SIGINT
        finally:
            process.kill()


def test_ctrl_c_ends_a_single_answer_with_its_own_status(tmp_path: Path) -> None:
    # Merged while the model is loaded, which begins threads of MindSpore's.
    adapter = tiny.write_adapter(tmp_path / "adapter")
    terminal = Terminal("--adapter", str(adapter), *ENDLESS, "What is fever?")
    with terminal.process as process:
        try:
            terminal.until("diagnosis.)\r\n")
            time.sleep(0.5)
            terminal.type("\x03")
            terminal.until("ms-medqa ask: interrupted")
            assert process.wait(30) == 128 + signal.SIGINT
        finally:
            process.kill()
