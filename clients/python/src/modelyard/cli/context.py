"""What all commands share: the connection and the way answers are written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard import Client


class Output(StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


@dataclass(slots=True)
class _Context:
    server: str = ""
    project: str = ""
    output: Output = Output.TABLE


_context = _Context()


def configure(*, server: str, project: str, output: Output) -> None:
    """Take the options that stand before the command."""
    _context.server, _context.project, _context.output = server, project, output


def output() -> Output:
    """Return how the answer is to be written."""
    return _context.output


def as_json() -> bool:
    """Say whether a program reads the answer."""
    return _context.output is Output.JSON


def chosen_project() -> str:
    """Return the project that the command line names; empty: it names none."""
    return _context.project


def chosen_server() -> str:
    """Return the suite's address that the command line names; empty: it names none."""
    return _context.server


def client() -> Client:
    """Connect to the suite that the options, the environment or the configuration name."""
    from modelyard import Client  # noqa: PLC0415 - grpc is imported only when it is used

    return Client(_context.server or None, project=_context.project or None)
