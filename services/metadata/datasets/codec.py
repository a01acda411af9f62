"""Between messages and domain: datasets."""

from __future__ import annotations

from modelyard.metadata.v1 import dataset_pb2

from services.common.errors import invalid_field
from services.common.names import ArtifactName, DatasetName
from services.metadata import limits
from services.metadata.datasets.domain import (
    Column,
    ColumnProfile,
    Dataset,
    DatasetSource,
    DatasetVersion,
    DatasetVersionDraft,
)
from services.metadata.wire import moment, stamp

URI = 4_096
QUERY = 65_536
COLUMNS = 10_000
COLUMN_NAME = 255


def version_draft(message: dataset_pb2.DatasetVersion, parent: DatasetName) -> DatasetVersionDraft:
    """Return what the caller says of a dataset version."""
    field = "dataset_version"
    if len(message.schema) > COLUMNS:
        raise invalid_field(f"{field}.schema", f"must not hold more than {COLUMNS} columns")
    if message.row_count < 0:
        raise invalid_field(f"{field}.row_count", "must not be negative")
    if message.artifact:
        artifact = ArtifactName.parse(message.artifact, f"{field}.artifact")
        if artifact.project != parent.project:
            raise invalid_field(f"{field}.artifact", "must be of the dataset's project")
    return DatasetVersionDraft(
        digest=limits.digest(message.digest, f"{field}.digest"),
        source=_source_from(message.source) if message.HasField("source") else None,
        schema=tuple(_column_from(column) for column in message.schema),
        row_count=message.row_count if message.HasField("row_count") else None,
        artifact=message.artifact,
    )


def dataset(found: Dataset) -> dataset_pb2.Dataset:
    """Return a dataset's message."""
    message = dataset_pb2.Dataset(name=str(found.name), description=found.description)
    stamp(message.create_time, found.create_time)
    return message


def version(found: DatasetVersion) -> dataset_pb2.DatasetVersion:
    """Return a dataset version's message."""
    message = dataset_pb2.DatasetVersion(
        name=str(found.name),
        digest=found.digest,
        source=_source(found.source),
        schema=[_column(column) for column in found.schema],
        row_count=found.row_count,
        artifact=found.artifact,
        creator=found.creator,
    )
    stamp(message.create_time, found.create_time)
    return message


def _source_from(message: dataset_pb2.DatasetSource) -> DatasetSource:
    field = "dataset_version.source"
    if len(message.columns) > COLUMNS:
        raise invalid_field(f"{field}.columns", f"must not be more than {COLUMNS}")
    starts, ends = message.HasField("start_time"), message.HasField("end_time")
    return DatasetSource(
        uri=limits.line(message.uri, f"{field}.uri", URI),
        query=limits.lines(message.query, f"{field}.query", QUERY),
        columns=tuple(
            limits.line(name, f"{field}.columns", COLUMN_NAME) for name in message.columns
        ),
        filters=limits.lines(message.filters, f"{field}.filters", QUERY),
        start_time=moment(message.start_time, f"{field}.start_time") if starts else None,
        end_time=moment(message.end_time, f"{field}.end_time") if ends else None,
    )


def _source(found: DatasetSource | None) -> dataset_pb2.DatasetSource | None:
    if found is None:
        return None
    message = dataset_pb2.DatasetSource(
        uri=found.uri, query=found.query, columns=found.columns, filters=found.filters
    )
    stamp(message.start_time, found.start_time)
    stamp(message.end_time, found.end_time)
    return message


def _column_from(message: dataset_pb2.Column) -> Column:
    field = "dataset_version.schema"
    return Column(
        name=limits.line(message.name, f"{field}.name", COLUMN_NAME, required=True),
        type=limits.line(message.type, f"{field}.type", COLUMN_NAME, required=True),
        profile=_profile_from(message.profile) if message.HasField("profile") else None,
    )


def _profile_from(message: dataset_pb2.ColumnProfile) -> ColumnProfile:
    if not 0 <= message.null_count <= message.count:
        problem = "must hold a null_count between 0 and count"
        raise invalid_field("dataset_version.schema.profile", problem)
    return ColumnProfile(
        count=message.count,
        null_count=message.null_count,
        min=message.min if message.HasField("min") else None,
        max=message.max if message.HasField("max") else None,
        mean=message.mean if message.HasField("mean") else None,
        std=message.std if message.HasField("std") else None,
    )


def _column(found: Column) -> dataset_pb2.Column:
    message = dataset_pb2.Column(name=found.name, type=found.type)
    profile = found.profile
    if profile is not None:
        message.profile.CopyFrom(
            dataset_pb2.ColumnProfile(
                count=profile.count,
                null_count=profile.null_count,
                min=profile.min,
                max=profile.max,
                mean=profile.mean,
                std=profile.std,
            )
        )
    return message
