"""Gathering what a version is made of, for its bill of materials."""

from __future__ import annotations

from modelyard._evidence import bom as _bom
from modelyard._names import Names, Ref
from modelyard._resources.resolving import resolve_version
from modelyard._transfers import pull as _pull
from modelyard._transfers.recipes import read_whole
from modelyard._transport.calls import Flow, ask, call
from modelyard.errors import NotFoundError
from modelyard.metadata.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    run_pb2,
    run_service_pb2,
)


def bill_of_materials(names: Names, target: Ref) -> Flow[str]:
    """Return a version's bill of materials."""
    version = yield from ask(resolve_version(names, target))
    files = yield from _pull.list_files(version.artifact)
    lock = b""
    if any(file.path == _bom.LOCK_PATH for file in files):
        lock = yield from read_whole(version.artifact, _bom.LOCK_PATH)
    run = yield from _run(version.run)
    uses = run.datasets if run else ()
    datasets: list[dataset_pb2.DatasetVersion] = []
    for use in uses:
        datasets += [(yield from _dataset(use.dataset_version))]
    return _bom.render(_bom.Ingredients(version, files, lock.decode(), run, datasets))


def _run(name: str) -> Flow[run_pb2.Run | None]:
    if not name:
        return None
    request = run_service_pb2.GetRunRequest(name=name)
    try:
        return (yield from ask(call(request, run_service_pb2.GetRunResponse, lambda r: r.run)))
    except NotFoundError:  # purged since
        return None


def _dataset(name: str) -> Flow[dataset_pb2.DatasetVersion]:
    request = dataset_service_pb2.GetDatasetVersionRequest(name=name)
    wanted = call(
        request, dataset_service_pb2.GetDatasetVersionResponse, lambda r: r.dataset_version
    )
    return (yield from ask(wanted))
