"""`modelyard reproduce`, `provenance` and `images`: how a version came to be, and comes again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.groups import Group
from modelyard.cli.render import leaf, short_version, show_table, write_json

if TYPE_CHECKING:
    from modelyard.reproduction import Reproduction

To = Annotated[Path | None, typer.Option("--to", help="A file; else standard output.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(reproduce)
    app.command()(provenance)
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)
    group.command("export")(export)
    group.command("push")(push)
    app.add_typer(group, name="images", help="Export and push container images.")


def reproduce(
    version: str,
    *,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="By which part metrics may differ: 1e-6.")
    ] = 0.0,
    pool: Annotated[str, typer.Option(help="The pool of workers; else the version's.")] = "",
    follow: Annotated[bool, typer.Option(help="Show how the build goes.")] = True,
) -> int:
    """Build a version anew from its record; exit with 0 when its metrics come out the same.

    It registers nothing and moves no alias.
    """
    from modelyard.cli.live import show_events  # noqa: PLC0415

    builds = client().builds
    made = builds.reproduce(version, pool=pool)
    if follow and not as_json():
        print(leaf(made.name))
        show_events(builds.follow(made.name))
    found = builds.reproduction(made.name, tolerance=tolerance)
    _show(found)
    return 0 if found.agrees else 1


def provenance(
    version: str,
    *,
    to: To = None,
    key: Annotated[
        Path | None, typer.Option(help="A public key: write only what was signed with it.")
    ] = None,
    envelope: Annotated[
        bool, typer.Option("--envelope", help="Write the signed DSSE envelope as it is.")
    ] = False,
) -> None:
    """Write how a version was built: an in-toto statement with SLSA provenance v1.

    With --key the exit status is 1 unless the worker signed it with that key, of this version.
    """
    versions = client().versions
    text = versions.provenance(version, key=key)
    _write(versions.signed_provenance(version).decode() if envelope else text, to)


def export(
    version: str,
    destination: Annotated[Path, typer.Argument(help="A new folder: an OCI image layout.")],
    base: Annotated[
        Path | None, typer.Option(help="The layout of an image with Python to put it on.")
    ] = None,
) -> None:
    """Write a version's container image as an OCI image layout."""
    client().images.export(version, destination, base=base)
    if not as_json():
        print(destination)


def push(
    version: str,
    target: Annotated[str, typer.Argument(help="REGISTRY/REPOSITORY:TAG.")],
    *,
    base: Annotated[
        Path | None, typer.Option(help="The layout of an image with Python to put it on.")
    ] = None,
    auth_file: Annotated[
        Path | None, typer.Option(help="A config.json with credentials, beside Docker's own.")
    ] = None,
    record: Annotated[
        bool, typer.Option(help="Note on the version that this is its image.")
    ] = False,
) -> None:
    """Push a version's container image to a registry; print what names it there for ever."""
    reference = client().images.push(version, target, base=base, auth_file=auth_file, record=record)
    if as_json():
        write_json({"image": reference})
    else:
        print(reference)


def _write(text: str, to: Path | None) -> None:
    if to is None:
        typer.echo(text.rstrip("\n"))
    else:
        to.write_text(text)


def _show(found: Reproduction) -> None:
    if as_json():
        write_json(_plain(found))
        return
    rows: list[tuple[object, ...]] = [
        (pair.key, pair.before, pair.after, _word(pair.agrees)) for pair in found.metrics
    ]
    rows += [
        (pair.part, pair.before[:12], pair.after[:12] or None, _word(pair.agrees))
        for pair in found.digests
    ]
    version, build = short_version(found.version.name), leaf(found.build.name)
    show_table(["", version, build, ""], rows)
    if found.build.failure.reason:
        print(f"{build} failed: {found.build.failure.reason} {found.build.failure.message}")
    same = "; every byte is the same" if found.is_identical else ""
    print(f"{version} is {'' if found.agrees else 'not '}reproduced{same}")


def _word(agrees: bool) -> str:
    return "same" if agrees else "differs"


def _plain(found: Reproduction) -> dict[str, object]:
    from dataclasses import asdict  # noqa: PLC0415

    return {
        "version": found.version.name,
        "build": found.build.name,
        "agrees": found.agrees,
        "identical": found.is_identical,
        "metrics": [asdict(pair) for pair in found.metrics],
        "digests": [asdict(pair) | {"agrees": pair.agrees} for pair in found.digests],
    }
