"""`modelyard audit`: who did what, and whether that is still what was written."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import json_of, moment, show_list, show_table, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard.auditing import Chain, Head

Filter = Annotated[
    str, typer.Option(help='More, e.g. \'request_id = "…" OR delegation : "builds/"\'.')
]
_COUNT = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")]


def register(group: typer.Typer) -> None:
    """Add `audit` to the command line."""
    group.command("list")(list_entries)
    group.command("verify")(verify)
    group.command("export")(export)


def list_entries(
    *,
    actor: Annotated[str, typer.Option(help="Who, e.g. user:ada.")] = "",
    resource: Annotated[str, typer.Option(help="What, or a part of its name.")] = "",
    method: Annotated[str, typer.Option(help="Which RPC, or a part, e.g. CreateModel.")] = "",
    since: Annotated[str, typer.Option(help="10m, 2h, 1d ago, or a time.")] = "",
    until: Annotated[str, typer.Option(help="10m, 2h, 1d ago, or a time.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what did not succeed.")] = False,
    filter: Filter = "",
    limit: _COUNT = 50,
) -> None:
    """List what was done, and refused, in all services: newest first."""
    from modelyard.cli.moments import since_moment  # noqa: PLC0415

    terms = [f"actor = {_quoted(actor)}" if actor else ""]
    terms += [f"resource : {_quoted(resource)}" if resource else ""]
    terms += [f"method : {_quoted(method)}" if method else ""]
    terms += [f'time >= "{since_moment(since).isoformat()}"' if since else ""]
    terms += [f'time < "{since_moment(until).isoformat()}"' if until else ""]
    terms += ['outcome != "OK"' if refused else "", f"({filter})" if filter else ""]
    show_list(
        client().audit.list(filter=" AND ".join(term for term in terms if term), limit=limit),
        {
            "TIME": lambda e: moment(e.time),
            "ACTOR": lambda e: e.actor or "nobody",
            "CALL": lambda e: e.method.rpartition("/")[2],
            "RESOURCE": lambda e: e.resource or "-",
            "OUTCOME": lambda e: e.outcome if e.count == 1 else f"{e.outcome} x {e.count}",
            "FOR": lambda e: e.delegation or "-",
            "ENTRY": lambda e: f"{e.service} {e.sequence}",
        },
    )


def verify(
    heads: Annotated[
        Path | None,
        typer.Option(help="A file with the heads of before; made, and replaced when all is well."),
    ] = None,
) -> None:
    """Read the whole trail and see whether an entry was changed, removed, put in or moved.

    That the newest were cut off is found against earlier heads: keep them where whoever could
    change the databases cannot.
    """
    chains = client().audit.verify(_known(heads) if heads else None)
    _show(chains)
    if any(chain.problems for chain in chains):
        raise typer.Exit(1)
    if heads:
        found = {
            c.service: {"sequence": c.head.sequence, "hash": c.head.hash.hex()} for c in chains
        }
        heads.write_text(json.dumps(found, indent=2) + "\n")


def export(
    file: Annotated[Path, typer.Argument(help="Where to: JSON, an entry a line.")],
    filter: Filter = "",
) -> None:
    """Write the trail to a file, service by service, oldest first, with every entry's hash."""
    from modelyard.auditing import SERVICES  # noqa: PLC0415

    count = 0
    with file.open("w", encoding="utf-8") as out:
        for service in SERVICES:
            for entry in client().audit.entries(service, filter=filter):
                out.write(json_of(entry, indent=None) + "\n")
                count += 1
    typer.echo(f"{count} entries")


def _show(chains: Sequence[Chain]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "service": chain.service,
            "entries": chain.head.sequence,
            "head": chain.head.hash.hex(),
            "problems": chain.problems,
        }
        for chain in chains
    ]
    if as_json():
        write_json(rows)
        return
    show_table(
        ["SERVICE", "ENTRIES", "HEAD", "VERDICT"],
        [
            [
                r["service"],
                str(r["entries"]),
                r["head"][:16],
                "; ".join(r["problems"][:5]) or "sound",
            ]
            for r in rows
        ],
    )


def _known(heads: Path) -> Mapping[str, Head]:
    from modelyard.auditing import Head  # noqa: PLC0415

    if not heads.exists():
        return {}
    stored = json.loads(heads.read_text())
    return {
        service: Head(int(head["sequence"]), bytes.fromhex(head["hash"]))
        for service, head in stored.items()
    }


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
