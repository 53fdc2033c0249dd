"""The operator: the person at the robot. Trials talk to them through a terminal, or to a script."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections import Counter
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal, Protocol

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.real.trials import Verdict

Command = Literal["", "stop", "invalid", "quit"]
"""An operator's request during a trial, other than a verdict. Each one leaves the arm stopped; "" is none."""

Placement = Literal["again", "start", "quit"]
"""What to do about a misplaced object: look again, start anyway, or quit."""

KEYS = "while the arm moves: x stop, i stop and call it invalid, q stop and quit; in a trial also s success, f fail"
COMMANDS: dict[str, Command] = {"x": "stop", "i": "invalid", "q": "quit"}
PLACEMENTS: dict[str, Placement] = {"\n": "again", "\r": "again", "s": "start", "q": "quit"}
RESULTS: dict[str, Literal["success", "fail", "invalid"]] = {"s": "success", "f": "fail", "i": "invalid"}
PATIENCE = 3
"""How often a script answers go to the same question: nobody is there to fix the cause."""


class Operator(Protocol):
    """The person who supervises the trials."""

    def say(self, text: str) -> None:
        """Show a message."""

    def wait_for_go(self, text: str) -> bool:
        """Wait for the go. Returns ``False`` if the operator wants to quit. Discards earlier commands and verdicts."""

    def ask_placement(self, text: str) -> Placement:
        """Ask what to do about a misplaced object."""

    def wants_stop(self) -> bool:
        """Whether a :meth:`command` is pending; does not consume it. Never blocks: called while the arm moves home."""

    def trial_begins(self) -> None:
        """Discard earlier verdicts; pending commands still count."""

    def verdict(self) -> bool | None:
        """Whether the operator has judged the running trial: success, failure, or ``None`` so far. Never blocks."""

    def command(self) -> Command:
        """Return the next pending command, or "". Never blocks."""

    def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
        """Ask for the verdict on a finished trial.

        Args:
            text: what happened.
            proposed: the verdict to confirm or change, if there is one.
            may_succeed: false for a stopped trial, which cannot be a success.

        Returns:
            The verdict; ``None`` if the operator quits and will judge the trial in the next session.
        """


class TerminalOperator:
    """An operator at a keyboard, whose keys count without Enter. Use it as a context manager.

    Args:
        source: a terminal.
        output: where texts go.

    Raises:
        SettingsError: ``source`` is not a terminal.
    """

    def __init__(self, source: IO[str] = sys.stdin, output: IO[str] = sys.stdout):
        if not source.isatty():
            raise SettingsError("trials need an operator at a terminal: run this in one, without redirected input")
        self._source, self._output = source, output
        self._verdict: bool | None = None
        self._commands: list[Command] = []
        self._settings: list[Any] | None = None

    def __enter__(self) -> TerminalOperator:
        self._settings = termios.tcgetattr(self._source)
        tty.setcbreak(self._source)  # Ctrl+C still interrupts
        return self

    def __exit__(self, *error: object) -> None:
        if self._settings is not None:
            termios.tcsetattr(self._source, termios.TCSADRAIN, self._settings)

    def say(self, text: str) -> None:
        print(text, file=self._output, flush=True)

    def wait_for_go(self, text: str) -> bool:
        self.say(f"{text}\n[Enter] go   [q] quit   {KEYS}")
        termios.tcflush(self._source, termios.TCIFLUSH)  # ignore keys pressed before the question
        self._verdict, self._commands = None, []
        return self._wait({"\n": True, "\r": True, "q": False})

    def ask_placement(self, text: str) -> Placement:
        self.say(f"{text}\n[Enter] look again   [s] start anyway   [q] quit")
        termios.tcflush(self._source, termios.TCIFLUSH)
        return self._wait(PLACEMENTS)

    def wants_stop(self) -> bool:
        self._poll()
        return bool(self._commands)

    def trial_begins(self) -> None:
        self._poll()
        self._verdict = None

    def verdict(self) -> bool | None:
        self._poll()
        return self._verdict

    def command(self) -> Command:
        self._poll()
        return self._commands.pop(0) if self._commands else ""

    def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
        choices = {key: result for key, result in RESULTS.items() if may_succeed or result != "success"}
        offers = [*(f"[{key}] {result}" for key, result in choices.items()), "[q] quit, and judge it next time"]
        answers: dict[str, Any] = {**choices, "q": "later"}
        if proposed is not None:
            offers.insert(0, f"[Enter] {proposed.result}")
            answers |= {"\n": None, "\r": None}
        self.say(f"{text}\n{'   '.join(offers)}")
        termios.tcflush(self._source, termios.TCIFLUSH)
        result = self._wait(answers)
        if result == "later":
            return None
        if result is None:
            assert proposed is not None
            result, reason = proposed.result, proposed.reason
        else:
            reason = ""
        if result == "invalid" and not reason:
            reason = self._ask_line("Why is it invalid? ")
        self.say(f"-> {result}{f': {reason}' if reason else ''}")
        return Verdict(result, reason)

    def _poll(self) -> None:
        """Process the keys pressed so far."""
        while select.select([self._source], [], [], 0.0)[0]:
            key = self._read()
            if key in ("s", "f"):
                self._verdict = key == "s"
            elif key in COMMANDS:
                self._commands.append(COMMANDS[key])

    def _wait(self, answers: dict[str, Any]) -> Any:
        while (key := self._read()) not in answers:
            pass
        return answers[key]

    def _read(self) -> str:
        """Read one key, unbuffered: a buffer would hide the next keys from ``select``."""
        key = os.read(self._source.fileno(), 1)
        if not key:
            raise SettingsError("the terminal was closed")
        return key.decode("ascii", "replace").lower()

    def _ask_line(self, question: str) -> str:
        """Ask for a line of text that is not empty, with normal line editing."""
        self.__exit__()
        try:
            while True:
                print(question, end="", file=self._output, flush=True)
                line = self._source.readline()
                if not line:
                    raise SettingsError("the terminal was closed")
                if line.strip():
                    return line.strip()
        finally:
            tty.setcbreak(self._source)


class ScriptedOperator:
    """A scripted operator for rehearsals and tests. It takes verdicts from a list or from ``succeeded``.

    It answers go at most :data:`PATIENCE` times to the same question, then quits.

    Args:
        verdicts: answers to the first questions for a verdict; after that it accepts the proposal, or says failure.
        commands: one command per step, over all trials; none after the last one.
        succeeded: called once per step; whether the task is done.
        show: called with each message.
    """

    def __init__(
        self,
        verdicts: Sequence[Verdict] = (),
        commands: Sequence[Command] = (),
        succeeded: Callable[[], bool | None] = lambda: None,
        show: Callable[[str], None] = lambda text: None,
    ):
        self._verdicts, self._commands, self._succeeded, self._show = list(verdicts), list(commands), succeeded, show
        self._questions: Counter[str] = Counter()

    def say(self, text: str) -> None:
        self._show(text)

    def wait_for_go(self, text: str) -> bool:
        self._show(text)
        self._questions[text] += 1
        return self._questions[text] <= PATIENCE

    def ask_placement(self, text: str) -> Placement:
        self._show(text)
        return "start"

    def wants_stop(self) -> bool:
        return bool(self._commands and self._commands[0])

    def trial_begins(self) -> None:
        """Do nothing: it never judges in advance."""

    def verdict(self) -> bool | None:
        return self._succeeded()

    def command(self) -> Command:
        return self._commands.pop(0) if self._commands else ""

    def ask_verdict(self, text: str, proposed: Verdict | None, may_succeed: bool) -> Verdict | None:
        self._show(text)
        if self._verdicts:
            verdict = self._verdicts.pop(0)
            return verdict if may_succeed or verdict.result != "success" else Verdict("fail")
        if proposed is None:
            return Verdict("fail")
        return Verdict(proposed.result, proposed.reason or ("by script" if proposed.result == "invalid" else ""))
