"""What all commands share: version, help, completion, JSON on standard output, and a reader that ends early."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys

import pytest

import oc_residual_gym
from baselines import cli as baselines
from demos_replay import cli as demos_replay
from leaderboard import cli as leaderboard
from oc_residual_gym import cli
from oc_residual_gym.command_line import HelpFormatter, ends_with_its_reader

COMMANDS = {"oc-residual": cli, "demos-replay": demos_replay, "baselines": baselines, "leaderboard": leaderboard}
INSTALLED = ("oc-residual", "demos-replay")


@pytest.mark.parametrize("name", COMMANDS)
def test_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].main(["--version"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out.split()
    assert name in printed[-2]
    assert printed[-1] == oc_residual_gym.__version__


@pytest.mark.parametrize("package", ["oc_residual_gym", "demos_replay"])
def test_packages_run_as_their_commands(package: str) -> None:
    run = subprocess.run([sys.executable, "-m", package, "--help"], capture_output=True, text=True, check=True)
    assert f"usage: {dict(oc_residual_gym='oc-residual', demos_replay='demos-replay')[package]} " in run.stdout


def test_json_on_standard_output_has_it_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tasks", "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert [entry["task"] for entry in json.loads(printed.out)][:2] == ["Lift", "PickPlace"]
    assert "instruction:" in printed.err


def test_nothing_is_on_standard_output_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--task", "Juggle", "--out", "nowhere", "--json", "-"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Juggle" in printed.err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("name", INSTALLED)
def test_completion(name: str, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert "--out" in script and name in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser, *(p for action in nested for choice in action.choices.values() for p in parsers(choice))]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_no_default_that_says_nothing(name: str) -> None:
    texts = [parser.format_help() for parser in parsers(COMMANDS[name]._parser())]
    assert len(texts) > 4
    for text in texts:
        assert not any(f"default: {nothing})" in " ".join(text.split()) for nothing in ("None", "False", "()", "[]"))


def test_help_names_defaults_that_say_something() -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    for i, default in enumerate((0, "val", 32)):
        parser.add_argument(f"--option{i}", default=default, help="text")
    assert all(f"(default: {default})" in parser.format_help() for default in (0, "val", 32))


@pytest.mark.parametrize("arguments", [["tasks"], ["--help"], ["tasks", "--json", "-"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_ends_early_ends_the_command_silently(arguments: list[str], buffered: bool) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    program = [sys.executable, *([] if buffered else ["-u"]), "-m", "oc_residual_gym", *arguments]
    with os.fdopen(writes, "w") as output:
        run = subprocess.run(program, stdout=output, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 141
    assert "Traceback" not in run.stderr and "BrokenPipe" not in run.stderr


def test_other_broken_pipes_are_errors() -> None:
    @ends_with_its_reader
    def main(arguments: object = None) -> int:
        raise BrokenPipeError("a worker has gone")

    with pytest.raises(BrokenPipeError, match="worker"):
        main()
