"""What a comparison shows, whatever it is written as: rows of text, said once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelyard.cli.render import leaf, moment, text, value

if TYPE_CHECKING:
    from modelyard.metadata.v1.comparison_pb2 import ComparedItem, MetricCell
    from modelyard.metadata.v1.comparison_service_pb2 import CompareResponse
    from modelyard.metadata.v1.dataset_difference_pb2 import DatasetDifference
    from modelyard.metadata.v1.run_pb2 import CodeSource

_ARROWS = {0: "", 1: "↑", 2: "↓"}
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Head:
    """One of the things compared."""

    short: str
    title: str
    created: str
    creator: str
    run: str
    version: str
    build: str
    run_name: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a key, and one text for each thing; empty where it has none."""

    key: str
    cells: tuple[str, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one thing; `tone` is `better`, `worse` or empty."""

    text: str
    delta: str = ""
    tone: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class MetricLine:
    """One metric; `goal` is an arrow up or down, or empty."""

    key: str
    goal: str
    cells: tuple[Figure, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Code:
    """How one thing's code differs from the first one's."""

    base: str
    other: str
    diff: str
    cut: bool
    note: str
    commits: tuple[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """A comparison, ready to be written."""

    heads: tuple[Head, ...]
    metrics: tuple[MetricLine, ...]
    params: tuple[Row, ...]
    environment: tuple[Row, ...]
    packages: tuple[Row, ...]
    datasets: tuple[Row, ...]
    data_notes: tuple[str, ...]
    sources: tuple[Row, ...]
    code: tuple[Code, ...]

    def with_code(self, code: Sequence[Code]) -> View:
        """Return the view with other differences of the code."""
        return replace(self, code=tuple(code))


def make_view(answer: CompareResponse) -> View:
    """Put a comparison into words."""
    heads = tuple(_head(item) for item in answer.items)
    return View(
        heads=heads,
        metrics=tuple(
            MetricLine(
                metric.key,
                _ARROWS[metric.goal],
                tuple(_figure(cell, metric.goal) for cell in metric.cells),
                differs=len({_same(cell) for cell in metric.cells}) > 1,
            )
            for metric in answer.metrics
        ),
        params=tuple(
            Row(param.key, tuple(_param(found) for found in param.values), param.differs)
            for param in answer.params
        ),
        environment=tuple(
            Row(fact.key.replace("_", " "), tuple(fact.values), fact.differs)
            for fact in answer.environment
        ),
        packages=tuple(Row(p.name, tuple(p.versions), differs=True) for p in answer.packages),
        datasets=tuple(
            Row(role.role, tuple(_datasets(v.names) for v in role.dataset_versions), role.differs)
            for role in answer.datasets
        ),
        data_notes=tuple(
            note for role in answer.datasets for found in role.differences for note in _data(found)
        ),
        sources=tuple(_sources(answer.code.sources)),
        code=tuple(_code(answer, heads)),
    )


def _head(item: ComparedItem) -> Head:
    return Head(
        short=short_name(item.name),
        title=item.title,
        created=moment(item.create_time),
        creator=item.creator,
        run=short_name(item.run),
        version=short_name(item.version),
        build=short_name(item.build),
        run_name=item.run,
    )


def short_name(name: str) -> str:
    """Write a run's or version's name as `model/id`, any other by its id."""
    parts = name.split("/")
    return f"{parts[3]}/{parts[5]}" if len(parts) == 6 else leaf(name)


def _param(found: Any) -> str:
    return "" if found.WhichOneof("kind") is None else text(value(found))


def _same(cell: MetricCell) -> str:
    return repr(cell.value) if cell.HasField("value") else ""


def _figure(cell: MetricCell, goal: int) -> Figure:
    if not cell.HasField("value"):
        return Figure("")
    if not cell.HasField("delta") or cell.delta == 0 or math.isnan(cell.delta):
        return Figure(text(cell.value), best=cell.best)
    arrow = "▲" if cell.delta > 0 else "▼"
    tone = "" if goal == 0 else "better" if (cell.delta > 0) == (goal == 1) else "worse"
    return Figure(text(cell.value), f"{arrow} {cell.delta:+.4g}", tone, cell.best)


def _datasets(names: Sequence[str]) -> str:
    return ", ".join(short_name(name) for name in names)


def _data(found: DatasetDifference) -> list[str]:
    """Say in sentences how data differs."""
    pair = f"{short_name(found.base)} → {short_name(found.other)}"
    notes = _first(
        pair,
        [f"column {c.column} {_change(c.old_type, c.new_type)}" for c in found.schema_changes],
    )
    if found.HasField("base_row_count") and found.HasField("other_row_count"):
        notes.insert(0, f"{pair}: {found.base_row_count:,} → {found.other_row_count:,} rows")
    drifted = [column for column in found.columns if column.drifted]
    if drifted:
        named = ", ".join(f"{c.column} (PSI {c.psi:.3g})" for c in drifted[:_NAMED])
        more = f" and {len(drifted) - _NAMED} more" if len(drifted) > _NAMED else ""
        notes.append(
            f"{pair}: {len(drifted)} of {len(found.columns)} columns drifted: {named}{more}"
        )
    changes = [
        f"{column.column}: {change.description}"
        for column in found.columns
        for change in column.quality_changes
    ]
    return notes + _first(pair, changes)


def _first(pair: str, notes: Sequence[str]) -> list[str]:
    """Return the first few notes, and how many more there are."""
    more = [f"{pair}: and {len(notes) - _NAMED} more"] if len(notes) > _NAMED else []
    return [*(f"{pair}: {note}" for note in notes[:_NAMED]), *more]


def _change(old: str, new: str) -> str:
    if not old:
        return f"added ({new})"
    return f"removed ({old})" if not new else f"was {old}, is {new}"


def _sources(sources: Sequence[CodeSource]) -> list[Row]:
    facts = {
        "repository": [s.repository for s in sources],
        "branch": [s.branch for s in sources],
        "commit": [f"{s.commit[:12]}{' + changes' if s.dirty else ''}" for s in sources],
        "entry point": [s.entry_point for s in sources],
        "snapshot": [leaf(s.snapshot)[:12] for s in sources],
    }
    return [
        Row(key, tuple(cells), len(set(cells)) > 1) for key, cells in facts.items() if any(cells)
    ]


def _code(answer: CompareResponse, heads: Sequence[Head]) -> list[Code]:
    sources = answer.code.sources
    return [
        Code(
            base=heads[0].short,
            other=heads[index].short,
            diff=found.unified_diff,
            cut=found.cut,
            note=found.note,
            commits=(sources[0].commit, sources[index].commit),
        )
        for index, found in enumerate(answer.code.differences, 1)
    ]
