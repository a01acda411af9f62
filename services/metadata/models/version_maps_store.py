"""What hangs on versions: labels, parameters, metrics and aliases, all read by one statement."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.sql.database import Double
from services.metadata.models.store import (
    ALIASES,
    VERSION_LABELS,
    VERSION_METRICS,
    VERSION_PARAMS,
)
from services.metadata.values import ParamValue, unpack_param

_LABEL, _PARAM, _METRIC, _ALIAS = range(4)


@dataclass(slots=True)
class VersionMaps:
    """What hangs on one version, each by key."""

    labels: dict[str, str] = field(default_factory=dict)
    params: dict[str, ParamValue] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def read_maps(connection: Connection, pks: Sequence[int]) -> dict[int, VersionMaps]:
    """Return what hangs on versions, by their rows."""
    found: dict[int, VersionMaps] = defaultdict(VersionMaps)
    if not pks:
        return found
    rows = connection.execute(_select(single=len(pks) == 1), {"pks": _given(pks)}).all()
    for kind, pk, key, text, packed, number in sorted(rows, key=lambda row: row.key):
        maps = found[pk]
        if kind == _LABEL:
            maps.labels[key] = text
        elif kind == _PARAM:
            maps.params[key] = unpack_param(packed)
        elif kind == _METRIC:
            maps.metrics[key] = number
        else:
            maps.aliases.append(key)
    return found


def _given(pks: Sequence[int]) -> Any:
    return pks[0] if len(pks) == 1 else list(pks)


@functools.cache
def _select(*, single: bool) -> sa.CompoundSelect[Any]:
    """Build, once, what `read_maps` runs: building it costs several times as much."""
    parts: tuple[tuple[int, sa.Table, str, dict[str, sa.ColumnElement[Any]]], ...] = (
        (_LABEL, VERSION_LABELS, "key", {"text": VERSION_LABELS.c.value}),
        (_PARAM, VERSION_PARAMS, "key", {"packed": VERSION_PARAMS.c.value}),
        (_METRIC, VERSION_METRICS, "key", {"number": VERSION_METRICS.c["last"]}),
        (_ALIAS, ALIASES, "alias", {}),
    )
    nothing: dict[str, sa.ColumnElement[Any]] = {
        "text": sa.cast(sa.null(), sa.Text()),
        "packed": sa.cast(sa.null(), sa.LargeBinary()),
        "number": sa.cast(sa.null(), Double()),
    }
    pks: sa.BindParameter[Any] = sa.bindparam("pks", expanding=not single)
    return sa.union_all(
        *(
            sa.select(
                sa.literal_column(str(kind), sa.Integer()).label("kind"),
                table.c.version_pk,
                table.c[key].label("key"),
                *(values.get(name, none).label(name) for name, none in nothing.items()),
            ).where(table.c.version_pk == pks if single else table.c.version_pk.in_(pks))
            for kind, table, key, values in parts
        )
    )
