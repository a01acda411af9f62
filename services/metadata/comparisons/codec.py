"""Between messages and domain: comparisons."""

from __future__ import annotations

from modelyard.metadata.v1 import comparison_pb2, comparison_service_pb2, model_pb2, run_pb2

from services.common.errors import invalid_field
from services.common.names import BuildName, ProjectName, RunName, VersionName, invalid_name
from services.metadata.comparisons.domain import (
    CodeDifference,
    Comparison,
    DatasetRow,
    MetricRow,
    ParamRow,
    Subject,
)
from services.metadata.comparisons.store import SubjectName
from services.metadata.datasets.codec import difference as dataset_difference
from services.metadata.limits import limit_exceeded
from services.metadata.runs.domain import CodeSource
from services.metadata.wire import stamp, value

COMPARED = range(2, 101)
ANSWER_BYTES = 4 * 1024 * 1024


def compared(request: comparison_service_pb2.CompareRequest) -> list[SubjectName]:
    """Return what to compare."""
    project = ProjectName.parse(request.parent, "parent").project
    if len(request.names) not in COMPARED:
        raise invalid_field("names", f"must be {COMPARED[0]} to {COMPARED[-1]}")
    names = [_name(name) for name in request.names]
    if any(name.project != project for name in names):
        raise invalid_field("names", "must all be of the parent's project")
    return names


def response(found: Comparison) -> comparison_service_pb2.CompareResponse:
    """Return a comparison's message."""
    message = comparison_service_pb2.CompareResponse(
        items=[_item(subject) for subject in found.subjects],
        params=[_param_row(row) for row in found.params],
        metrics=[_metric_row(row) for row in found.metrics],
        environment=[
            comparison_pb2.FactComparison(key=row.key, values=row.values, differs=row.differs)
            for row in found.environment
        ],
        packages=[
            comparison_pb2.PackageComparison(name=row.name, versions=row.versions)
            for row in found.packages
        ],
        code=comparison_pb2.CodeComparison(
            sources=[_source(subject) for subject in found.subjects],
            differences=[_code_difference(difference) for difference in found.code],
        ),
        datasets=[_dataset_row(row) for row in found.datasets],
    )
    if message.ByteSize() > ANSWER_BYTES:
        raise limit_exceeded("bytes_of_a_comparison", ANSWER_BYTES)
    return message


def _name(text: str) -> SubjectName:
    kinds: tuple[type[SubjectName], ...] = (VersionName, RunName, BuildName)
    for kind in kinds:
        if kind.expression.fullmatch(text):
            return kind.parse(text)
    raise invalid_name("names", "must be names of runs, versions or builds")


def _item(found: Subject) -> comparison_pb2.ComparedItem:
    message = comparison_pb2.ComparedItem(
        name=found.name,
        run=found.run,
        version=found.version,
        build=found.build,
        title=found.title,
        creator=found.creator,
    )
    stamp(message.create_time, found.create_time)
    return message


def _param_row(row: ParamRow) -> comparison_pb2.ParamComparison:
    message = comparison_pb2.ParamComparison(key=row.key, differs=row.differs)
    for found in row.values:
        cell = message.values.add()
        if found is not None:
            cell.CopyFrom(value(found))
    return message


def _metric_row(row: MetricRow) -> comparison_pb2.MetricComparison:
    message = comparison_pb2.MetricComparison(key=row.key)
    if row.goal is not None:
        message.goal = model_pb2.MetricGoal.Value(f"METRIC_GOAL_{row.goal}")
    for found in row.cells:
        cell = message.cells.add(best=found.best)
        if found.value is not None:
            cell.value = found.value
        if found.delta is not None:
            cell.delta = found.delta
    return message


def _source(found: Subject) -> run_pb2.CodeSource:
    """Return where a subject's code came from, without its diff."""
    code = found.code or CodeSource()
    return run_pb2.CodeSource(
        repository=code.repository,
        commit=code.commit,
        branch=code.branch,
        dirty=code.dirty,
        snapshot=code.snapshot,
        entry_point=code.entry_point,
    )


def _code_difference(found: CodeDifference) -> comparison_pb2.CodeDifference:
    return comparison_pb2.CodeDifference(
        unified_diff=found.unified_diff, cut=found.cut, note=found.note
    )


def _dataset_row(row: DatasetRow) -> comparison_pb2.DatasetComparison:
    return comparison_pb2.DatasetComparison(
        role=row.role,
        dataset_versions=[
            comparison_pb2.DatasetVersionList(names=names) for names in row.dataset_versions
        ],
        differs=row.differs,
        differences=[dataset_difference(found) for found in row.differences],
    )
