"""Describing data: digest, schema, row count and a profile of each column.

The digest of data in memory is the SHA-256 of the JSON list `[[name, type, column digest], …]`
(UTF-8, no spaces), in the columns' order. A column digest is the SHA-256 of its values: numbers
and truth values as their little-endian bytes, moments as 64-bit nanoseconds, anything else value
by value as `length ":" UTF-8 text`, a null as `-:`. Frames of pandas and polars, Arrow tables,
arrays and plain mappings that hold the same columns so have the same digest. A file's digest is
the SHA-256 of its bytes; a folder's that of the JSON list `[[path, file digest], …]` by path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.tracking.columns import ColumnFacts, describe_column

MAX_ROLE = 63
MAX_COLUMNS = 1_000
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def describe(data: Any) -> dict[str, Any]:
    """Return the fields of a DatasetVersion that the data itself gives, for JSON.

    Raises:
        TypeError: The data is of no kind that is known.
        ValueError: Its columns do not have one length.
    """
    if callable(getattr(data, "collect", None)) and hasattr(data, "collect_schema"):
        data = data.collect()  # a lazy frame of polars
    if isinstance(data, str | Path):
        return _describe_path(Path(data).expanduser())
    columns = _columns_of(data)
    described = [(name, describe_column(values)) for name, values in columns]
    lengths = {column.length for _, column in described}
    if len(lengths) > 1:
        raise ValueError(f"the columns have different lengths: {sorted(lengths)}")
    parts = [[name, column.type, column.digest] for name, column in described]
    return {
        "digest": _digest(json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()),
        "schema": _schema(columns, described),
        "row_count": lengths.pop() if lengths else 0,
    }


def _schema(
    columns: list[tuple[str, Any]], described: list[tuple[str, ColumnFacts]]
) -> list[dict[str, Any]]:
    """Return columns with whole profiles where `modelyard[data]` is installed, else with short."""
    if not _can_profile():
        return [
            {"name": name, "type": column.type, "profile": column.profile}
            for name, column in described[:MAX_COLUMNS]
        ]
    from modelyard.profiling.profiles import profile_columns  # noqa: PLC0415 - an extra

    pairs = zip(columns, described, strict=True)
    found = profile_columns((name, facts.type, values) for (name, values), (_, facts) in pairs)
    return [_for_json(column) for column in found]


def _can_profile() -> bool:
    return all(importlib.util.find_spec(name) for name in ("datasketches", "numpy", "pyarrow"))


def _for_json(column: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - rarely needed

    return dict(MessageToDict(column, preserving_proto_field_name=True))


def source(  # noqa: PLR0917 - in the message's order
    uri: str = "",
    query: str = "",
    columns: Sequence[str] = (),
    filters: str = "",
    start: datetime | None = None,
    end: datetime | None = None,
) -> dict[str, Any]:
    """Return the fields of a DatasetSource, for JSON.

    Raises:
        ValueError: A moment has no time zone, or the range ends before it starts.
    """
    moments = {"start_time": start, "end_time": end}
    if any(moment is not None and moment.tzinfo is None for moment in moments.values()):
        raise ValueError("start and end need a time zone")
    if start and end and end < start:
        raise ValueError("the range ends before it starts")
    return {
        "uri": uri,
        "query": query,
        "columns": list(columns),
        "filters": filters,
        **{name: found.isoformat() for name, found in moments.items() if found is not None},
    }


def check_role(role: object) -> str:
    """Return a role, or raise ValueError."""
    if not isinstance(role, str) or not 0 < len(role) <= MAX_ROLE:
        raise ValueError(f"a role is text of 1 to {MAX_ROLE} characters, such as 'train'")
    return role


def check_id(name: str | None) -> str:
    """Return a dataset's id, empty when it is to be made up; raise ValueError for a bad one."""
    if name is not None and not _ID.fullmatch(name):
        raise ValueError(f"{name!r} is no dataset id: {_ID.pattern}")
    return name or ""


def default_id(*, model: str, role: str) -> str:
    """Return the id of a model's dataset in some role, such as `churn-train`."""
    text = re.sub(r"[^a-z0-9]+", "-", f"{model}-{role}".lower()).strip("-")
    return text[:63].rstrip("-")


def _columns_of(data: Any) -> list[tuple[str, Any]]:  # noqa: PLR0911 - one for each kind
    if isinstance(data, tuple) and len(data) == 2:
        features, target = data
        name = getattr(target, "name", None)
        return [*_columns_of(features), (str(name) if name else "target", target)]
    if isinstance(data, Mapping):
        return [(str(name), values) for name, values in data.items()]
    if hasattr(data, "column_names"):  # an Arrow table
        return [(str(name), data.column(i)) for i, name in enumerate(data.column_names)]
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas: names need not be unique
        return [(str(name), data.iloc[:, i]) for i, name in enumerate(data.columns)]
    if hasattr(data, "columns"):  # polars and its like
        return [(str(name), data[name]) for name in data.columns]
    shape = getattr(data, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] <= MAX_COLUMNS:
        return [(str(index), data[:, index]) for index in range(shape[1])]
    if shape or isinstance(data, Sequence):
        return [(str(getattr(data, "name", None) or "values"), data)]
    kind = type(data).__name__
    raise TypeError(
        f"cannot describe {kind}: give a data frame, table, array, (X, y), "
        "mapping of columns, or the path of a file"
    )


def _describe_path(path: Path) -> dict[str, Any]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        parts = [[p.relative_to(path).as_posix(), _file_digest(p)] for p in files]
        digest = _digest(json.dumps(parts, separators=(",", ":")).encode())
        return {"digest": digest} | (_profile_files(path) if _can_profile() else {})
    facts: dict[str, Any] = {"digest": _file_digest(path)}
    if _can_profile():
        return facts | _profile_files(path)
    if path.suffix.lower() == ".csv":
        from modelyard.tracking.csv_files import describe_csv  # noqa: PLC0415 - rarely needed

        facts |= describe_csv(path)
    return facts


def _profile_files(path: Path) -> dict[str, Any]:
    from modelyard.profiling.profiles import profile_files  # noqa: PLC0415 - an extra

    found = profile_files(path)
    if found is None:
        return {}
    columns, rows = found
    return {"schema": [_for_json(column) for column in columns], "row_count": rows}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
