"""The bill of materials of a version: what it is made of, as CycloneDX 1.6 (ECMA-424) says it.

The model with its card (parameters, metrics, datasets), its files, the packages of its environment
and the commit of its code. Needs `modelyard[bom]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.artifact.v1 import artifact_pb2
from modelyard.errors import FailedPreconditionError
from modelyard.metadata.v1 import dataset_pb2, run_pb2, version_pb2

LOCK_PATH = "environment/requirements.lock"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What is known of a version."""

    version: version_pb2.Version
    files: Sequence[artifact_pb2.File]
    lock: str
    run: run_pb2.Run | None
    datasets: Sequence[dataset_pb2.DatasetVersion]


def render(known: Ingredients) -> str:
    """Return the bill of materials as CycloneDX 1.6 in JSON."""
    cyclonedx = _library()
    version = known.version
    _, _, _, model, _, number = version.name.split("/")
    bom = cyclonedx.Bom()
    bom.metadata.component = cyclonedx.Component(
        name=model,
        version=version.label or number,
        type=cyclonedx.ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=version.name,
        description=version.description or None,
        licenses=_licenses(cyclonedx, version.license),
        properties=_properties(cyclonedx, known),
    )
    parts = [
        *_packages(cyclonedx, known),
        *_datasets(cyclonedx, known.datasets),
        *_files(cyclonedx, known.files),
        *_code(cyclonedx, known.run),
    ]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(bom.metadata.component, parts)
    document = json.loads(cyclonedx.JsonV1Dot6(bom).output_as_string())
    # The library does not write model cards, which the standard has.
    document["metadata"]["component"]["modelCard"] = _card(known)
    return json.dumps(document, indent=2)


def _library() -> Any:
    try:
        from modelyard._evidence import cyclonedx as _cyclonedx  # noqa: PLC0415
    except ImportError as error:
        raise FailedPreconditionError(
            "a bill of materials needs `pip install modelyard[bom]`", reason="EXTRA_MISSING"
        ) from error
    return _cyclonedx


def _licenses(cyclonedx: Any, license_text: str) -> list[Any]:
    return [cyclonedx.LicenseFactory().make_from_string(license_text)] if license_text else []


def _properties(cyclonedx: Any, known: Ingredients) -> list[Any]:
    version = known.version
    facts = {
        "artifact": version.artifact.rpartition("/")[2],
        "run": version.run,
        "build": version.build,
        "environment": version.environment_digest,
        "python": known.run.environment.python_version if known.run else "",
    }
    return [
        cyclonedx.Property(name=f"modelyard:{name}", value=value)
        for name, value in facts.items()
        if value
    ]


def _packages(cyclonedx: Any, known: Ingredients) -> Iterable[Any]:
    pinned = [line.partition(";")[0].strip() for line in known.lock.splitlines()]
    found = {line.partition("==")[0]: line.partition("==")[2] for line in pinned if "==" in line}
    if not found and known.run:
        found = {package.name: package.version for package in known.run.environment.packages}
    for name, pin in sorted(found.items()):
        version = pin.partition(" ")[0]
        purl = cyclonedx.PackageURL("pypi", name=name.lower().replace("_", "-"), version=version)
        yield cyclonedx.Component(
            name=name,
            version=version,
            type=cyclonedx.ComponentType.LIBRARY,
            bom_ref=purl.to_string(),
            purl=purl,
        )


def _datasets(cyclonedx: Any, datasets: Iterable[dataset_pb2.DatasetVersion]) -> Iterable[Any]:
    for dataset in datasets:
        _, _, _, name, _, number = dataset.name.split("/")
        yield cyclonedx.Component(
            name=name,
            version=number,
            type=cyclonedx.ComponentType.DATA,
            bom_ref=dataset.name,
            description=dataset.source.uri or None,
            properties=[cyclonedx.Property(name="modelyard:digest", value=dataset.digest)],
        )


def _files(cyclonedx: Any, files: Iterable[artifact_pb2.File]) -> Iterable[Any]:
    for file in files:
        yield cyclonedx.Component(
            name=file.path,
            type=cyclonedx.ComponentType.FILE,
            bom_ref=f"file:{file.path}",
            hashes=[cyclonedx.HashType(alg=cyclonedx.HashAlgorithm.SHA_256, content=file.sha256)],
        )


def _code(cyclonedx: Any, run: run_pb2.Run | None) -> Iterable[Any]:
    if run is None or not run.code.commit:
        return
    code = run.code
    dirty = "yes" if code.dirty else "no"
    yield cyclonedx.Component(
        name=code.repository or "source",
        version=code.commit,
        type=cyclonedx.ComponentType.APPLICATION,
        bom_ref=f"code:{code.commit}",
        properties=[cyclonedx.Property(name="modelyard:changed_since_commit", value=dirty)],
    )


def _card(known: Ingredients) -> dict[str, Any]:
    version = known.version
    params = [
        {"name": f"modelyard:param:{key}", "value": _text(value)}
        for key, value in sorted(version.params.items())
    ]
    metrics = [
        {"type": key, "value": repr(value)} for key, value in sorted(version.metrics.items())
    ]
    return {
        "modelParameters": {"datasets": [{"ref": dataset.name} for dataset in known.datasets]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "properties": params,
    }


def _text(value: Any) -> str:
    return str(getattr(value, value.WhichOneof("kind"))).strip()
