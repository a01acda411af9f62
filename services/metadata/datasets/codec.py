"""Between messages and domain: datasets."""

from __future__ import annotations

from modelyard.metadata.v1 import dataset_difference_pb2, dataset_pb2

from services.common.errors import invalid_field
from services.common.names import ArtifactName, DatasetName
from services.metadata import limits
from services.metadata.datasets import profiles
from services.metadata.datasets.domain import (
    Column,
    ColumnDifference,
    Dataset,
    DatasetDifference,
    DatasetSource,
    DatasetVersion,
    DatasetVersionDraft,
    QualityChangeKind,
    SchemaChange,
    SchemaChangeKind,
)
from services.metadata.wire import moment, stamp

URI = 4_096
QUERY = 65_536
COLUMNS = 10_000
COLUMN_NAME = 255

_SCHEMA_KINDS = {
    kind: dataset_difference_pb2.SchemaChangeKind.Value(f"SCHEMA_CHANGE_KIND_{kind}")
    for kind in SchemaChangeKind
}
_QUALITY_KINDS = {
    kind: dataset_difference_pb2.QualityChangeKind.Value(f"QUALITY_CHANGE_KIND_{kind}")
    for kind in QualityChangeKind
}


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
        profile=profiles.read(message.profile, f"{field}.profile")
        if message.HasField("profile")
        else None,
    )


def _column(found: Column) -> dataset_pb2.Column:
    profile = None if found.profile is None else profiles.profile(found.profile)
    return dataset_pb2.Column(name=found.name, type=found.type, profile=profile)


def difference(found: DatasetDifference) -> dataset_difference_pb2.DatasetDifference:
    """Return a difference's message."""
    return dataset_difference_pb2.DatasetDifference(
        base=str(found.base.name),
        other=str(found.other.name),
        same_digest=found.is_same,
        base_row_count=found.base.row_count,
        other_row_count=found.other.row_count,
        schema_changes=[_schema_change(change) for change in found.schema_changes],
        columns=[_column_difference(column) for column in found.columns],
        drifted_column_count=sum(
            column.drift is not None and column.drift.is_drifted for column in found.columns
        ),
    )


def _schema_change(found: SchemaChange) -> dataset_difference_pb2.SchemaChange:
    return dataset_difference_pb2.SchemaChange(
        column=found.column,
        kind=_SCHEMA_KINDS[found.kind],
        old_type=found.old_type,
        new_type=found.new_type,
    )


def _column_difference(found: ColumnDifference) -> dataset_difference_pb2.ColumnDifference:
    drift = found.drift
    return dataset_difference_pb2.ColumnDifference(
        column=found.column,
        quality_changes=[
            dataset_difference_pb2.QualityChange(
                kind=_QUALITY_KINDS[change.kind], description=change.description
            )
            for change in found.quality_changes
        ],
        psi=None if drift is None else drift.psi,
        js_distance=None if drift is None else drift.js_distance,
        psi_threshold=None if drift is None else drift.threshold,
        drifted=drift is not None and drift.is_drifted,
        note=found.note,
    )
