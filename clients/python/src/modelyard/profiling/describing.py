"""The profile of any data that `modelyard.log_dataset` takes."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict

from modelyard.metadata.v1 import dataset_pb2
from modelyard.profiling.profiles import DatasetProfile
from modelyard.tracking import datasets


def profile(data: Any) -> DatasetProfile:
    """Sum data up: a pandas or polars frame, an Arrow table, arrays, or a CSV or Parquet path.

    A path may be a folder of files of one schema. The digest is as `modelyard.log_dataset` says.

    Raises:
        TypeError: The data is of no kind that is known.
        ValueError: Its columns do not have one length, or a file cannot be read.
    """
    facts = ParseDict(datasets.describe(data), dataset_pb2.DatasetVersion())
    row_count = facts.row_count if facts.HasField("row_count") else None
    return DatasetProfile(list(facts.schema), row_count, facts.digest)
