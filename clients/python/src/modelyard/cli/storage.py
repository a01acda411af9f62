"""`modelyard artifacts`: what keeps them, the space they take, whether their bytes are sound."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import moment, show_list, show_one, state

if TYPE_CHECKING:
    from modelyard.artifact.v1.storage_pb2 import Usage

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def register(group: typer.Typer) -> None:
    """Add `artifacts` to the command line."""
    group.command("verify")(_verify)
    group.command("holds")(_holds)
    group.command("usage")(_usage)
    group.command("quota")(_quota)
    group.command("sweep")(_sweep)
    group.command("formats")(_formats)
    group.command("url")(_url)


def _verify(
    source: Annotated[str, typer.Argument(help="A version (churn/7) or an artifact.")],
) -> None:
    """Read stored bytes over; exit with 1 when any are damaged. A push repairs them."""
    damaged = client().storage.verify(source)
    if damaged or as_json():
        show_list(
            damaged,
            {
                "DAMAGED": lambda file: file.path,
                "SHA-256": lambda file: file.sha256,
                "CHUNK": lambda file: file.chunk_sha256,
            },
        )
    else:
        print("no damage found")
    if damaged:
        raise typer.Exit(1)


def _formats(
    source: Annotated[str, typer.Argument(help="A version (churn/7) or an artifact.")],
) -> None:
    """Say what files are by their content; exit with 1 when loading any runs what it says."""
    from modelyard.artifact.v1 import format_service_pb2 as service  # noqa: PLC0415

    report = client().artifacts.formats(source)
    if report.files or as_json():
        show_list(
            report.files,
            {
                "FILE": lambda file: file.path,
                "FORMAT": lambda file: file.format,
                "VERDICT": lambda file: state(service.FormatVerdict, file.verdict),
                "WHY": lambda file: ", ".join(file.reasons),
            },
        )
    if not as_json():
        counts = (report.allowed_count, report.unverified_count, report.unsafe_count)
        typer.echo("{} allowed, {} unverified, {} unsafe".format(*counts))
    if report.unsafe_count:
        raise typer.Exit(1)


def _url(
    source: Annotated[str, typer.Argument(help="A version (churn/7) or an artifact.")],
    path: Annotated[str, typer.Argument(help="A file; or a folder, with a / at its end.")] = "",
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long it is valid.")] = 15,
) -> None:
    """Make a URL for tools that only speak HTTP; whoever has it may read."""
    typer.echo(client().artifacts.url(source, path, lifetime=timedelta(minutes=minutes)))


def _holds(artifact: str) -> None:
    """List what holds an artifact: why its bytes are kept."""
    show_list(
        client().artifacts.holds(artifact),
        {"HOLDER": lambda hold: hold.holder, "SINCE": lambda hold: moment(hold.create_time)},
    )


def _usage() -> None:
    """Show what the project stores."""
    _show(client().storage.usage())


def _quota(
    size: Annotated[str, typer.Argument(help="Such as 500G, 2TiB or 'none'.")],
) -> None:
    """Limit what the project may store. For operators."""
    _show(client().storage.set_quota(_bytes(size)))


def _sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Let go of what nothing needs; bytes go after a grace, as they do by themselves."""
    from modelyard.artifact.v1.storage_pb2 import GarbageKind  # noqa: PLC0415

    swept = client().storage.sweep(dry_run=dry_run)
    show_list(
        swept.items,
        {
            "KIND": lambda item: state(GarbageKind, item.kind).lower(),
            "WHAT": lambda item: item.description,
            "BYTES": lambda item: item.size_bytes,
            "WHY": lambda item: item.reason,
        },
    )
    if not as_json():
        verb = "would be freed" if dry_run else "freed"
        more = swept.item_count - len(swept.items)
        rest = f", {more} more items" if more else ""
        print(f"{swept.freed_bytes} bytes {verb}{rest}")


def _show(usage: Usage) -> None:
    show_one(
        usage,
        {
            "project": usage.project,
            "stored": f"{usage.stored_bytes} bytes",
            "needed": f"{usage.needed_bytes} bytes",
            "quota": f"{usage.quota_bytes} bytes" if usage.quota_bytes else "none",
            "artifacts": usage.artifact_count,
            "files": usage.file_count,
            "damaged chunks": usage.damaged_chunk_count,
        },
    )


def _bytes(size: str) -> int | None:
    if size == "none":
        return None
    found = _SIZE.fullmatch(size)
    if found is None or not float(found[1]):
        raise typer.BadParameter("write it as 500G, 2TiB or none", param_hint="SIZE")
    return int(float(found[1]) * _UNITS[found[2].upper()])
