"""Provenance: an in-toto statement, with SLSA's predicate, of what a build made from what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from modelyard._transfers.tree import Entry, tree_digest
from modelyard.common.v1 import value_pb2

from services.builder.worker.work import Work
from services.common.environments.lock import HASH, lock_digest, pin

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://modelyard.dev/build/v1"
BUILDER = "https://modelyard.dev/builder"


@dataclass(frozen=True, slots=True)
class Products:
    """What a build made."""

    files: Sequence[Entry]
    """Of the bundle."""
    image_digest: str
    base_digest: str


def statement(work: Work, products: Products) -> dict[str, Any]:
    """Return the statement of a build that is whole but for its registration."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": list(_subjects(work, products)),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(work),
                "internalParameters": {"environment": lock_digest(work.lock)},
                "resolvedDependencies": list(_dependencies(work, products)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"modelyard": version("modelyard")}},
                "metadata": {
                    "invocationId": f"{work.build.name}/attempts/{work.lease.attempt}",
                    "startedOn": _moment(work.build.start_time.ToDatetime(UTC)),
                    "finishedOn": _moment(datetime.now(UTC)),
                },
                "byproducts": list(_byproducts(work)),
            },
        },
    }


def _subjects(work: Work, products: Products) -> Iterator[dict[str, Any]]:
    """Yield the artifact, whose digest is that of its manifest, the image, and each file."""
    project = work.build.name.rpartition("/builds/")[0]
    artifact = tree_digest(products.files)
    yield _resource(f"{project}/artifacts/{artifact}", sha256=artifact)
    if products.image_digest:
        yield _resource("image", sha256=products.image_digest.partition(":")[2])
    for file in products.files:
        yield _resource(file.path, sha256=file.sha256)


def _resource(name: str, **digest: str) -> dict[str, Any]:
    return {"name": name, "digest": digest}


def _parameters(work: Work) -> dict[str, Any]:
    """Return what was ordered; secrets by their names."""
    build, spec = work.build, work.build.spec
    given: dict[str, Any] = {
        "model": build.model,
        "source": build.source,
        "entry": spec.entry,
        "params": {key: plain(spec.params[key]) for key in sorted(spec.params)},
        "requirements": spec.requirements,
        "python": work.python_version,
        "data": {data.name: data.dataset_version for data in spec.data},
        "variables": dict(sorted(spec.variables.items())),
        "secrets": {secret.variable: secret.secret for secret in spec.secrets},
        "network": spec.network,
        "skipTests": spec.skip_tests,
        "reproduces": spec.reproduces,
    }
    return {key: value for key, value in given.items() if value not in ("", {}, False)}


def _dependencies(work: Work, products: Products) -> Iterator[dict[str, Any]]:
    """Yield what went into the build, by digest."""
    build, origin = work.build, work.build.origin
    yield {"name": "source", **_input(build.source)}
    if origin.commit and not origin.dirty:
        digest = {"gitCommit": origin.commit}
        yield {"name": "commit", "uri": f"git+{origin.repository}", "digest": digest}
    lock = work.lock.encode()
    yield {"name": "lock", "digest": {"sha256": hashlib.sha256(lock).hexdigest()}}
    for data in build.spec.data:
        artifact = work.data_artifacts[data.name]
        yield {"name": f"data/{data.name}", **_input(artifact), "uri": data.dataset_version}
    if products.base_digest:
        yield _resource("base", sha256=products.base_digest.partition(":")[2])
    for line in work.lock.splitlines():
        yield _package(line)


def _input(artifact: str) -> dict[str, Any]:
    return {"uri": artifact, "digest": {"sha256": artifact.rpartition("/")[2]}}


def _package(line: str) -> dict[str, Any]:
    """Return a package of the lock; by its digest where one file alone can be meant."""
    name, _, release = pin(line).partition("==")
    found = [part.removeprefix(HASH).partition(":") for part in line.split()[1:]]
    digest = {"digest": {found[0][0]: found[0][2]}} if len(found) == 1 else {}
    return {"uri": f"pkg:pypi/{name.lower()}@{release}", **digest}


def _byproducts(work: Work) -> Iterator[dict[str, Any]]:
    yield {"name": "run", "uri": work.build.run}
    if work.test_report:
        yield _resource("tests.xml", sha256=hashlib.sha256(work.test_report).hexdigest())


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(value: value_pb2.Value) -> Any:
    """Return a parameter's value as JSON has it."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [plain(part) for part in value.list_value.values]
    return getattr(value, kind) if kind else None
