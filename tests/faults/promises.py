"""What was acknowledged, held against what the services say in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from modelyard import Client
from modelyard.builder.v1 import build_pb2
from modelyard.metadata.v1 import version_pb2

from tests.e2e.suite import TERMINAL
from tests.faults.journal import Write
from tests.faults.orders import BUILT, MARK
from tests.faults.writers import METRIC

# By the id of the write that made it: as what it was answered, and what it set.
Found = dict[str, list[tuple[str, str]]]


def broken(client: Client, writes: list[Write], environment: str) -> list[str]:
    """Return which promises were broken: what was lost, changed, or done twice."""
    found = defaultdict(list, _records(client, writes))
    for kept in (
        _builds(client),
        _deployments(client, writes, environment),
        _points(client, writes),
    ):
        found.update(kept)
    problems = _unfinished_builds(client)
    for write in writes:
        there = found[write.id]
        if len(there) > 1:
            problems.append(f"{write} was done {len(there)} times: {there}")
        elif write.name is not None and not there:
            problems.append(f"{write} was acknowledged and is lost")
        elif write.name is None and write.patient:
            problems.append(f"{write} was never acknowledged")
        elif there and there[0] != (write.name or there[0][0], write.value):
            problems.append(f"{write} became {there[0]}")
    return problems


def _records(client: Client, writes: list[Write]) -> Found:
    found: Found = defaultdict(list)
    for model in _subjects(writes, "version"):
        for version in client.versions.list(model):
            if version.state == version_pb2.VERSION_STATE_READY:
                found[version.description].append((version.name, version.artifact))
        for change in client.aliases.history(model):
            found[change.reason].append((change.new_version, change.new_version))
        for run in client.runs.list(model):
            found[run.display_name].append((run.name, ""))
    return found


def _points(client: Client, writes: list[Write]) -> Found:
    found: Found = defaultdict(list)
    for run in _subjects(writes, "metric"):
        points = client.runs.metric_points(run, METRIC)
        for step, value in zip(points.steps, points.values, strict=True):
            found[f"{run}#{step}"].append((str(step + 1), f"{value:.0f}"))
    return found


def _builds(client: Client) -> Found:
    found: Found = defaultdict(list)
    for build in client.builds.list():
        found[build.spec.labels[MARK]].append((build.name, build.spec.source))
    return found


def _deployments(client: Client, writes: list[Write], environment: str) -> Found:
    found: Found = defaultdict(list)
    for model in _subjects(writes, "deploy"):
        name = client.deployments.get(model, environment=environment).name
        for revision in client.deployments.history(model, environment=environment):
            found[revision.reason].append((name, revision.version))
    return found


def _unfinished_builds(client: Client) -> list[str]:
    builds = list(client.builds.list())
    versions = {v.build: v.name for v in client.versions.list(BUILT)}
    problems = [f"{b.name} has not ended: {b}" for b in builds if b.state not in TERMINAL]
    won = {b.name: b.version for b in builds if b.state == build_pb2.BUILD_STATE_SUCCEEDED}
    if won != versions:
        problems.append(f"builds say {won}, and there are {versions}")
    return problems


def _subjects(writes: Iterable[Write], kind: str) -> list[str]:
    return sorted({write.subject for write in writes if write.kind == kind})
