"""What the command line says of itself, and where its shared options may stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from modelyard.cli import app

from services.suite import commands


def _tree(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from _tree(command.get_command(None, name), (*words, name))


@pytest.fixture(scope="module")
def root() -> Any:
    made = app.make_app()
    commands.register(made)
    return typer.main.get_command(made)


def test_every_command_and_option_says_what_it_does(root: Any) -> None:
    silent = []
    for words, command in _tree(root):
        options = [p for p in command.params if p.param_type_name == "option"]
        silent += [(*words, option.name) for option in options if not option.help]
        silent += [] if command.help else [words]
    assert silent == []


@pytest.mark.parametrize("words", [(), ("deployments",), ("artifacts",)])
def test_a_group_says_it_whole(root: Any, words: tuple[str, ...]) -> None:
    group = root
    for word in words:
        group = group.get_command(None, word)
    told = " ".join(group.get_help(group.make_context("modelyard", ["x"])).split())
    for name in group.list_commands(None):
        sentence, *_ = re.split(r"(?<=\.)\s", group.get_command(None, name).help)
        assert " ".join(sentence.split()) in told


def test_the_version_is_told(capsys: pytest.CaptureFixture[str], root: Any) -> None:
    root(["--version"], standalone_mode=False)
    assert capsys.readouterr().out == f"modelyard {version('modelyard')}\n"


@pytest.mark.parametrize("form", [["-o", "json"], ["-ojson"], ["--output=json"]])
def test_shared_options_stand_anywhere(form: list[str]) -> None:
    assert app._globals_first(["runs", "list", *form, "--deleted"]) == [
        *form,
        *("runs", "list", "--deleted"),
    ]
