"""Profiles of frames, tables and files: exact figures exact, sketched ones close."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from modelyard.metadata.v1 import dataset_pb2
from modelyard.profiling import merge, profile

ROWS = 20_000
Kind = dataset_pb2.ColumnKind


def table(rows: int = ROWS, seed: int = 7) -> pa.Table:
    """Make a table with columns of each kind."""
    random = np.random.default_rng(seed)
    start = np.datetime64("2026-01-01T00:00:00", "us")
    return pa.table(
        {
            "x": pa.array(random.normal(3, 2, rows), mask=random.random(rows) < 0.1),
            "n": random.poisson(4, rows),
            "wide": random.integers(-(2**62), 2**62, rows),
            "city": pa.array([f"city-{i}" for i in random.geometric(0.2, rows)]),
            "id": [f"id-{i}" for i in range(rows)],
            "flag": random.random(rows) < 0.3,
            "at": start + random.integers(0, 10**12, rows),
        }
    )


def saved(write: Callable[[pa.Table, Path], object], suffix: str) -> Callable[..., Any]:
    def save(data: pa.Table, folder: Path) -> Path:
        path = folder / f"data{suffix}"
        write(data, path)
        return path

    return save


FORMS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "pandas": lambda data, _: data.to_pandas(),
    "polars": lambda data, _: pl.from_arrow(data),
    "lazy": lambda data, _: pl.from_arrow(data).lazy(),
    "arrow": lambda data, _: data,
    "csv": saved(pyarrow.csv.write_csv, ".csv"),
    "parquet": saved(pyarrow.parquet.write_table, ".parquet"),
}


def columns(found: Any) -> dict[str, dataset_pb2.ColumnProfile]:
    return {column.name: column.profile for column in found.schema}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_gives_its_figures(form: str, tmp_path: Path) -> None:
    data = table()
    found = profile(FORMS[form](data, tmp_path))
    assert found.row_count == ROWS
    by_name = columns(found)
    assert list(by_name) == data.column_names
    x, values = by_name["x"], data["x"].drop_null().to_numpy()
    assert (x.count, x.null_count, x.nan_count) == (ROWS, data["x"].null_count, 0)
    assert (x.min, x.max) == (values.min(), values.max())
    assert x.mean == pytest.approx(values.mean(), rel=1e-12)
    assert x.std == pytest.approx(values.std(), rel=1e-12)
    ranks = [np.searchsorted(np.sort(values), q) / len(values) for q in x.quantiles]
    assert max(abs(rank - i / 100) for i, rank in enumerate(ranks)) < 0.01
    assert x.distinct_count == pytest.approx(len(values), rel=0.1)
    assert sum(x.histogram.counts) == len(values)
    n = by_name["n"]
    exact = dict(zip(*np.unique(data["n"].to_numpy(), return_counts=True), strict=True))
    assert {int(float(t.value)): t.count for t in n.top_values} == exact
    assert n.distinct_count == len(exact)
    city = data["city"].value_counts().to_pylist()
    assert {t.value: t.count for t in by_name["city"].top_values} == {
        entry["values"]: entry["counts"] for entry in city
    }
    assert by_name["id"].distinct_count == pytest.approx(ROWS, rel=0.1)
    assert not by_name["id"].top_values
    assert [t.value for t in by_name["flag"].top_values] == ["false", "true"]
    assert by_name["at"].kind == Kind.COLUMN_KIND_TEMPORAL
    assert by_name["at"].min == pytest.approx(data["at"].to_numpy().min().astype(int) / 1e6)


def test_the_digest_is_that_of_the_content() -> None:
    data = table(500).select(["n", "flag", "id"])
    digests = {profile(form).digest for form in (data, data.to_pandas(), pl.from_arrow(data), data)}
    assert len(digests) == 1
    assert profile(data.slice(0, 499)).digest not in digests


@pytest.mark.parametrize("cuts", [(10_000,), (1, 2, 500), (5_000, 5_000, 15_000)])
def test_profiles_of_parts_merge_to_that_of_the_whole(cuts: tuple[int, ...]) -> None:
    data = table()
    ends = [0, *cuts, ROWS]
    parts = [profile(data.slice(a, b - a)) for a, b in pairwise(ends)]
    whole, merged = columns(profile(data)), merge(parts)
    assert merged.row_count == ROWS
    for name, found in columns(merged).items():
        expected = whole[name]
        for exact in ("count", "null_count", "nan_count", "min", "max", "kind"):
            assert getattr(found, exact) == getattr(expected, exact), (name, exact)
        assert found.mean == pytest.approx(expected.mean, rel=1e-9)
        assert found.std == pytest.approx(expected.std, rel=1e-9)
        assert found.distinct_count == pytest.approx(expected.distinct_count, rel=0.1)
        if name in {"n", "city", "flag"}:
            assert list(found.top_values) == list(expected.top_values)
        if name == "x":
            order = np.sort(data["x"].drop_null().to_numpy())
            ranks = [np.searchsorted(order, q) / len(order) for q in found.quantiles]
            assert max(abs(rank - i / 100) for i, rank in enumerate(ranks)) < 0.015


def test_what_is_kept_merges_as_well() -> None:
    data = table(3_000)
    parts = [data.slice(0, 1_000), data.slice(1_000)]
    kept = [
        dataset_pb2.DatasetVersion(digest=p.digest, row_count=p.row_count, schema=p.schema)
        for p in map(profile, parts)
    ]
    fresh, again = merge([profile(part) for part in parts]), merge(kept)
    assert fresh.digest == again.digest
    for one, other in zip(fresh.schema, again.schema, strict=True):
        for exact in ("count", "min", "max", "mean", "distinct_count", "top_values"):
            assert getattr(one.profile, exact) == getattr(other.profile, exact), one.name
    order = np.sort(data["x"].drop_null().to_numpy())
    ranks = [np.searchsorted(order, q) / len(order) for q in columns(again)["x"].quantiles]
    assert max(abs(rank - i / 100) for i, rank in enumerate(ranks)) < 0.015
    with pytest.raises(ValueError, match="different columns"):
        merge([profile({"a": [1]}), profile({"b": [1]})])
    with pytest.raises(ValueError, match="no profiles"):
        merge([])


def test_frequent_values_of_many_are_found() -> None:
    rare = [f"rare-{i}" for i in range(30_000)]
    values = [*rare, *["often"] * 6_000, *["seldom"] * 1_500]
    (found,) = profile({"c": values}).schema
    counts = {top.value: top.count for top in found.profile.top_values}
    assert counts["often"] == pytest.approx(6_000, rel=0.05)
    assert counts["seldom"] == pytest.approx(1_500, rel=0.1)
    assert found.profile.distinct_count == pytest.approx(30_002, rel=0.1)


ODD: dict[str, Any] = {
    "empty": pa.table({"a": pa.array([], pa.float64())}),
    "all null": {"a": [None, None]},
    "one row": {"a": [1.5]},
    "nan": {"a": [math.nan, 1.0]},
    "infinite": {"a": [math.inf, -math.inf, 1.0]},
    "huge": {"a": [2**70, 1]},
    "decimal": {"a": [decimal.Decimal("1.5"), None]},
    "date": {"a": [dt.date(2026, 1, 1), None]},
    "zoned": pd.DataFrame({"a": pd.to_datetime(["2026-01-01T00:00Z", None])}),
    "mixed": pd.DataFrame({"a": [1, "x", None]}, dtype=object),
    "twice": pd.DataFrame([[1, 2.5]], columns=["a", "a"]),
    "category": pd.DataFrame({"a": pd.Categorical(["x", "y", None])}),
    "nested": pa.table({"a": [[1, 2], [3]]}),
    "bytes": pa.table({"a": [b"\x00\xff", None]}),
    "unicode": {"ü \u202e": ["é\0", "\U0001f600" * 300]},
    "images": np.zeros((3, 4, 4), dtype=np.float32),
    "constant": {"a": [5.0] * 10},
    "subnormal": {"a": [5e-324, 1e-323] * 200},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_is_summed_up(name: str) -> None:
    found = profile(ODD[name])
    for column in found.schema:
        one = column.profile
        filled = one.count - one.null_count - one.nan_count
        assert filled >= 0
        assert len(one.quantiles) in {0, 101}
        assert list(one.quantiles) == sorted(one.quantiles)
        assert sum(top.count for top in one.top_values) <= filled
    if name == "infinite":
        assert (found.schema[0].profile.min, found.schema[0].profile.max) == (-math.inf, math.inf)
    if name == "twice":
        assert [c.name for c in found.schema] == ["a", "a"]


def test_files_that_are_no_data_and_columns_that_change_their_minds(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.csv"
    lines = [f"{i},{i / 7}" for i in range(400_000)]
    mixed.write_text("\n".join(["a,b", *lines, "late,1", '"two\nlines",2']))
    a, b = profile(mixed).schema
    assert (a.type, b.type) == ("string", "float64")
    assert a.profile.count == b.profile.count == 400_002
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"torn\.parquet"):
        profile(tmp_path / "torn.parquet")
    (tmp_path / "empty.csv").touch()
    assert profile(tmp_path / "empty.csv").schema == []


def test_a_folder_of_shards_is_one_dataset(tmp_path: Path) -> None:
    data = table(2_000)
    for number in range(4):
        part = data.slice(number * 500, 500)
        pyarrow.parquet.write_table(part, tmp_path / f"part-{number}.parquet")
    found = profile(tmp_path)
    assert found.row_count == 2_000
    assert columns(found)["n"].top_values == columns(profile(data))["n"].top_values


def test_wide_data_stays_small() -> None:
    random = np.random.default_rng(1)
    found = profile(pd.DataFrame(random.normal(size=(1_500, 300))))
    version = dataset_pb2.DatasetVersion(schema=found.schema)
    assert len(found.schema) == 300
    assert version.ByteSize() < 3 * 1024 * 1024
    assert found.schema[0].profile.quantile_sketch
    assert not found.schema[-1].profile.quantile_sketch
