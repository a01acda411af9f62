"""Describing data of many kinds."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from modelyard.metadata.v1 import dataset_pb2
from modelyard.tracking import datasets
from modelyard.tracking.csv_files import describe_csv


@pytest.fixture(autouse=True)
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describe data as it is done where `modelyard[data]` is not installed."""
    monkeypatch.setattr(datasets, "_can_profile", lambda: False)


def described(data: Any) -> dataset_pb2.DatasetVersion:
    facts = datasets.describe(data)
    facts["source"] = datasets.source("s3://x", "", ["a"], "")
    return ParseDict(facts, dataset_pb2.DatasetVersion())


class Frame:
    """Columns by name, as polars gives them."""

    def __init__(self, **columns: Any) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(to_numpy=lambda: np.asarray(self._columns[name]))


class Table:
    """Columns by number, as Arrow gives them."""

    def __init__(self, **columns: Any) -> None:
        self._columns = list(columns.values())
        self.column_names = list(columns)
        self.columns = self._columns

    def column(self, index: int) -> Any:
        return SimpleNamespace(to_numpy=lambda: np.asarray(self._columns[index]))


COLUMNS: dict[str, Any] = {"a": [1.0, 2.0, math.nan, 4.0], "b": ["x", "y", "z", "ü"]}


def test_the_same_columns_have_the_same_digest() -> None:
    plain = described(COLUMNS)
    assert described(Frame(**COLUMNS)).digest == plain.digest
    assert described(Table(**COLUMNS)).digest == plain.digest
    arrays = {"a": np.array(COLUMNS["a"]), "b": np.array(COLUMNS["b"], dtype=object)}
    assert described(arrays).digest == plain.digest
    assert described({"a": COLUMNS["a"], "b": ["x", "y", "z", "u"]}).digest != plain.digest
    assert described({"c": COLUMNS["a"], "b": COLUMNS["b"]}).digest != plain.digest


def test_schema_and_profile() -> None:
    version = described(COLUMNS)
    number, text = version.schema
    assert version.row_count == 4
    assert (number.name, number.type) == ("a", "float64")
    assert (number.profile.count, number.profile.null_count) == (4, 1)
    assert (number.profile.min, number.profile.max) == (1.0, 4.0)
    assert number.profile.mean == pytest.approx(7 / 3)
    assert number.profile.std == pytest.approx(np.std([1, 2, 4]))
    assert (text.type, text.profile.null_count) == ("string", 0)
    assert not text.profile.HasField("min")


def test_arrays_and_pairs() -> None:
    features = np.arange(6, dtype=np.int32).reshape(3, 2)
    version = described((features, np.array([True, False, True])))
    assert [(c.name, c.type) for c in version.schema] == [
        ("0", "int32"),
        ("1", "int32"),
        ("target", "bool"),
    ]
    images = described(np.zeros((5, 8, 8), dtype=np.float32))
    assert (images.row_count, images.schema[0].type) == (5, "float32[8][8]")
    wide = described(np.zeros((2, 5000)))
    assert [c.type for c in wide.schema] == ["float64[5000]"]


def test_moments_and_infinities() -> None:
    version = described(
        {"t": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]"), "x": [math.inf, 1.0]}
    )
    assert version.schema[0].type == "datetime64[ns]"
    assert version.schema[0].profile.null_count == 1
    assert not version.schema[1].profile.HasField("max")
    assert version.schema[1].profile.min == 1.0


def test_byte_order_and_layout_do_not_matter() -> None:
    plain = np.arange(12.0).reshape(4, 3)
    assert described(plain).digest == described(np.asfortranarray(plain)).digest
    assert described(plain).digest == described(plain.astype(">f8")).digest


def test_files_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,price,city\n1,2.5,Ulm\n2,,Bonn\n3,4.5,\n")
    version = described(str(file))
    assert version.row_count == 3
    assert [c.type for c in version.schema] == ["int64", "float64", "string"]
    assert version.schema[1].profile.null_count == 1
    assert version.schema[1].profile.mean == pytest.approx(3.5)
    assert version.schema[2].profile.null_count == 1
    folder = described(tmp_path)
    assert folder.digest != version.digest
    file.rename(tmp_path / "other.csv")
    assert described(tmp_path).digest != folder.digest
    assert describe_csv(tmp_path / "other.csv")["row_count"] == 3


def test_what_cannot_be_described_is_said() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        datasets.describe({"a": [1], "b": [1, 2]})
    with pytest.raises(TypeError, match="cannot describe"):
        datasets.describe(3.5)
    with pytest.raises(ValueError, match="role"):
        datasets.check_role("")
    with pytest.raises(ValueError, match="dataset id"):
        datasets.check_id("Bad Name")
    assert datasets.default_id(model="churn", role="Train set") == "churn-train-set"
