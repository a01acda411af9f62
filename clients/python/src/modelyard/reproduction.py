"""What came of building a version anew: which metrics and which files are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard._transfers.tree import Entry, tree_digest
from modelyard.artifact.v1 import artifact_pb2
from modelyard.builder.v1 import build_pb2
from modelyard.bundle import CODE_FOLDER, LOCK_FILE, MODEL_FOLDER
from modelyard.metadata.v1 import run_pb2, version_pb2

_PARTS = {
    "model files": f"{MODEL_FOLDER}/",
    "code": f"{CODE_FOLDER}/",
    "environment lock": LOCK_FILE,
    "whole artifact": "",
}


@dataclass(frozen=True, slots=True)
class MetricPair:
    """A metric's last value then and now."""

    key: str
    before: float | None
    """None: there was none."""
    after: float | None
    agrees: bool


@dataclass(frozen=True, slots=True)
class DigestPair:
    """The digest of a part of the artifact then and now."""

    part: str
    """`model files`, `code`, `environment lock` or `whole artifact`."""
    before: str
    after: str
    """Empty: the build made nothing."""

    @property
    def agrees(self) -> bool:
        """Say whether they are the same."""
        return self.before == self.after


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A version, the build that repeated it, and how they compare."""

    version: version_pb2.Version
    build: build_pb2.Build
    metrics: tuple[MetricPair, ...]
    digests: tuple[DigestPair, ...]

    @property
    def agrees(self) -> bool:
        """Say whether it was built, from the same, and each metric came out the same.

        The model's files may differ all the same: not every training writes them alike.
        """
        built = self.build.state == build_pb2.BUILD_STATE_SUCCEEDED
        inputs = [pair for pair in self.digests if pair.part in ("code", "environment lock")]
        same = all(pair.agrees for pair in inputs)
        return built and same and all(pair.agrees for pair in self.metrics)

    @property
    def is_identical(self) -> bool:
        """Say whether every byte of the artifact is the same, too."""
        return self.agrees and all(pair.agrees for pair in self.digests)


def pair_metrics(
    before: Mapping[str, float], after: Sequence[run_pb2.MetricSummary], tolerance: float
) -> tuple[MetricPair, ...]:
    """Pair the metrics of a version with those of a run, by key.

    Args:
        before: the version's.
        after: the run's.
        tolerance: by which part of the larger one two values may differ; 0: not at all.
    """
    now = {summary.key: summary.last for summary in after}
    return tuple(
        MetricPair(
            key,
            before.get(key),
            now.get(key),
            key in before and key in now and _close(before[key], now[key], tolerance),
        )
        for key in sorted({*before, *now})
    )


def pair_digests(
    before: Sequence[artifact_pb2.File], after: Sequence[artifact_pb2.File]
) -> tuple[DigestPair, ...]:
    """Pair the digests of the parts of two bundles; nothing after: the build made nothing."""
    return tuple(
        DigestPair(part, _digest(before, prefix), _digest(after, prefix) if after else "")
        for part, prefix in _PARTS.items()
    )


def _close(before: float, after: float, tolerance: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return math.isclose(before, after, rel_tol=tolerance, abs_tol=0.0)


def _digest(files: Sequence[artifact_pb2.File], prefix: str) -> str:
    return tree_digest(
        Entry(file.path, file.executable, file.size_bytes, file.sha256)
        for file in files
        if file.path.startswith(prefix)
    )
