"""`modelyard datasets`: looking at datasets, and at what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import leaf, moment, show_list, show_one, show_table, state, text

if TYPE_CHECKING:
    from modelyard.metadata.v1.dataset_difference_pb2 import ColumnDifference, DatasetDifference
    from modelyard.metadata.v1.dataset_pb2 import Column, DatasetVersion

_LONG = 40
_HEADINGS = (
    *("COLUMN", "TYPE", "KIND", "VALUES", "NULLS", "NANS", "DIFFERENT"),
    *("MIN", "MEAN", "MAX", "STD", "MOST FREQUENT"),
)


def register(group: typer.Typer) -> None:
    """Add `datasets` to the command line."""

    @group.command("list")
    def list_datasets() -> None:
        """List datasets."""
        show_list(
            client().datasets.list(),
            {"DATASET": lambda d: leaf(d.name), "CREATED": lambda d: moment(d.create_time)},
        )

    @group.command("show")
    def show_dataset(
        dataset: Annotated[str, typer.Argument(help="A dataset, prices, or a version, prices/3.")],
    ) -> None:
        """List a dataset's versions, newest first; or show what is in one version."""
        if leaf(dataset).isdigit():
            _show_version(client().datasets.get_version(dataset))
            return
        show_list(
            client().datasets.versions(dataset),
            {
                "VERSION": lambda v: leaf(v.name),
                "DIGEST": lambda v: v.digest[:12],
                "ROWS": lambda v: v.row_count,
                "COLUMNS": lambda v: len(v.schema),
                "SOURCE": lambda v: v.source.uri,
                "CREATED": lambda v: moment(v.create_time),
            },
        )

    @group.command("compare")
    def compare_datasets(
        base: Annotated[str, typer.Argument(help="What is held against, prices/1.")],
        other: Annotated[str, typer.Argument(help="What is held against it, prices/2.")],
        fail_on_drift: Annotated[bool, typer.Option(help="Exit with 1 if a column drifted.")] = (
            False
        ),
    ) -> None:
        """Show how one version differs from another: schema, quality, drift by column."""
        found = client().datasets.compare(base, other)
        if as_json():
            show_one(found, {})
        else:
            show_difference(found)
        if fail_on_drift and found.drifted_column_count:
            raise typer.Exit(1)


def _show_version(version: DatasetVersion) -> None:
    source = version.source
    show_one(
        version,
        {
            "version": version.name,
            "digest": version.digest,
            "rows": version.row_count if version.HasField("row_count") else None,
            "source": source.uri,
            "query": source.query,
            "columns taken": ", ".join(source.columns),
            "filters": source.filters,
            "from": moment(source.start_time) if source.HasField("start_time") else "",
            "until": moment(source.end_time) if source.HasField("end_time") else "",
            "artifact": version.artifact,
            "created": f"{moment(version.create_time)} by {version.creator}",
        },
    )
    if version.schema and not as_json():
        print()
        show_table(_HEADINGS, [_column_row(column) for column in version.schema])


def _column_row(column: Column) -> tuple[object, ...]:
    from modelyard.metadata.v1.dataset_pb2 import ColumnKind  # noqa: PLC0415 - `--help` waits not

    if not column.HasField("profile"):
        return (column.name, column.type)
    profile = column.profile
    given = [
        getattr(profile, name) if profile.HasField(name) else None
        for name in ("distinct_count", "min", "mean", "max", "std")
    ]
    if profile.kind == ColumnKind.COLUMN_KIND_TEMPORAL:
        given[1:] = [*map(_moment_of, given[1:4]), given[4]]
    # Profiles keep numbers as floats; of whole numbers nobody wants to see that.
    end = ".0" if "int" in column.type else ""
    tops = [(top.value.removesuffix(end), top.count) for top in profile.top_values[:3]]
    frequent = ", ".join(f"{_shown(value)} ({count:,})" for value, count in tops)
    counts = (profile.count, profile.null_count, profile.nan_count)
    kind = state(ColumnKind, profile.kind).lower() if profile.kind else ""
    return (column.name, column.type, kind, *counts, *given, frequent)


def _moment_of(seconds: float | None) -> object:
    """Write seconds since 1970 as a moment in UTC, if there is such a year."""
    try:
        return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (OverflowError, ValueError, OSError):
        return seconds


def _shown(value: str) -> str:
    """Write a value on one line; what cannot be seen is escaped."""
    short = value if len(value) <= _LONG else f"{value[:_LONG]}…"
    return short if short.strip() and short.isprintable() else repr(short)


def show_difference(found: DatasetDifference) -> None:
    """Show how one dataset version differs from another."""
    if found.same_digest:
        print("the same data")
        return
    base_rows = found.base_row_count if found.HasField("base_row_count") else None
    other_rows = found.other_row_count if found.HasField("other_row_count") else None
    for word, name, rows in (("base", found.base, base_rows), ("other", found.other, other_rows)):
        print(text(f"{word:<6} {name}" + ("" if rows is None else f", {rows:,} rows")))
    for change in found.schema_changes:
        print(text(f"column {change.column} {_type_change(change.old_type, change.new_type)}"))
    headings = ("COLUMN", "PSI", "THRESHOLD", "JS", "DRIFT", "NOTES")
    if found.columns:
        show_table(headings, [_difference_row(column) for column in found.columns])
    not_compared = sum(not column.HasField("psi") for column in found.columns)
    rest = f", {not_compared} not compared" if not_compared else ""
    print(f"{found.drifted_column_count} of {len(found.columns)} columns drifted{rest}")


def _difference_row(column: ColumnDifference) -> tuple[object, ...]:
    notes = [change.description for change in column.quality_changes]
    if column.note:
        notes.append(f"not compared: {column.note}")
    if not column.HasField("psi"):
        return (column.column, None, None, None, "", "; ".join(notes))
    figures = (column.psi, column.psi_threshold, column.js_distance)
    drift = "drifted" if column.drifted else ""
    return (column.column, *(f"{figure:.3f}" for figure in figures), drift, "; ".join(notes))


def _type_change(old: str, new: str) -> str:
    if not old:
        return f"added ({new})"
    return f"removed ({old})" if not new else f"was {old}, is {new}"
