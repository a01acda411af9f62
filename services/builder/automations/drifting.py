"""When data drifts from what a model was trained on: pure functions of metadata's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.builder.automations.domain import ColumnDrift, Measure, Trigger

NAMED = 5
"""So many columns are named in an explanation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a comparison says to a trigger."""

    drifted: bool
    words: str
    """The figures; or, when nothing can be told, why."""
    is_known: bool = True


def judge(trigger: Trigger, columns: Sequence[ColumnDrift]) -> Finding:
    """Say whether any column that counts drifted."""
    counted = [c for c in columns if not trigger.columns or c.column in trigger.columns]
    missing = set(trigger.columns) - {column.column for column in counted}
    if missing:
        return Finding(False, f"there is no column {', '.join(sorted(missing))} in both", False)
    known = [column for column in counted if _figure(trigger, column) is not None]
    if not known:
        notes = "; ".join(f"{c.column}: {c.note}" for c in counted[:NAMED])
        return Finding(False, notes or "they have no column in common", False)
    drifted = [column for column in known if _is_beyond(trigger, column)]
    drifted.sort(key=lambda column: -(_figure(trigger, column) or 0.0))
    words = ", ".join(_words(trigger, column) for column in drifted[:NAMED])
    more = f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else ""
    return Finding(bool(drifted), words + more)


def _figure(trigger: Trigger, column: ColumnDrift) -> float | None:
    return column.js_distance if trigger.measure is Measure.JS_DISTANCE else column.psi


def _is_beyond(trigger: Trigger, column: ColumnDrift) -> bool:
    if trigger.measure is Measure.VERDICT:
        return column.drifted
    return (_figure(trigger, column) or 0.0) > trigger.threshold


def _words(trigger: Trigger, column: ColumnDrift) -> str:
    limit = column.psi_limit if trigger.measure is Measure.VERDICT else trigger.threshold
    name = "JS distance" if trigger.measure is Measure.JS_DISTANCE else "PSI"
    figure = _figure(trigger, column) or 0.0
    return f"{column.column} ({name} {figure:.3g}, above {limit or 0.0:.3g})"
