"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

Filter = Annotated[str, typer.Option("--filter", help="Which ones, e.g. 'metrics.f1 > 0.7'.")]
Order = Annotated[str, typer.Option("--order-by", help="E.g. 'metrics.f1 desc'.")]
Description = Annotated[str, typer.Option("--description", help="For people.")]
NewDescription = Annotated[str | None, typer.Option("--description", help="The new one.")]
Deleted = Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="key=value; repeatable; '' for none.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="key=value; repeatable; '' for none.")
]


def mapping(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Return `key=value` texts as a mapping; None when there is no such option.

    Raises:
        typer.BadParameter: when one has no `=`.
    """
    return None if texts is None else dict(pair(text) for text in texts if text)


def pair(text: str) -> tuple[str, str]:
    """Return the key and the value of a `key=value`.

    Raises:
        typer.BadParameter: when it is none.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise typer.BadParameter(f"{text!r} is not key=value")
    return key, value


def utc(text: str) -> datetime:
    """Return a moment in ISO 8601; one that names no zone is in UTC.

    Raises:
        typer.BadParameter: when it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-05-01T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def number_pair(text: str) -> tuple[str, float]:
    """Return the key and the number of a `key=number`.

    Raises:
        typer.BadParameter: when it is none.
    """
    key, value = pair(text)
    try:
        return key, float(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} in {text!r} is no number") from None
