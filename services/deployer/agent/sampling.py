"""Samples: rows that model servers wrote, gathered by variant, summed up, and sent on.

Model servers write small files; they are taken away as they come, so that none fills its disk.
Rows are kept in memory until a version of the dataset is due; an agent that ends loses them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.metadata.v1 import dataset_pb2

from services.common.errors import ServiceError, is_passing
from services.common.names import DeploymentName
from services.deployer.agent.control_plane import ControlPlane
from services.deployer.agent.data_plane import VariantKey
from services.deployer.agent.preparing import variant_key
from services.deployer.agent.profiling import profile
from services.deployer.domain import Assignment, Sample
from services.deployer.rollouts.plans import Sampling

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MAX_CELLS = 1_000_000
"""So many values of all columns make a version, however few rows they are."""
VALUE_BYTES = 1024 * 1024
"""Columns past so many bytes of frequent values have none, as in `modelyard.profiling`."""
Files = Callable[[VariantKey], list[Path]]


@dataclass(slots=True)
class Rows:
    """Rows of one variant, by column."""

    plan: Sampling
    count: int = 0
    start: float = 0.0
    end: float = 0.0
    types: dict[str, str] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    cells: int = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in what a model server wrote of one request, as far as there is room."""
        taken = min(line["rows"], self.plan.rows_per_version - self.count)
        if taken <= 0 or self.cells >= MAX_CELLS:
            return
        self.start = self.start if self.count else line["time"]
        self.end = line["time"]
        self.count += taken
        for name, values in line["columns"].items():
            self.types.setdefault(name, line["types"][name])
            self.columns.setdefault(name, []).extend(values[:taken])
        self.cells += taken * len(line["columns"])

    def is_due(self, now: float) -> bool:
        """Say whether a version is to be made of them."""
        aged = self.count > 0 and now - self.start >= self.plan.interval_seconds
        is_full = self.count >= self.plan.rows_per_version or self.cells >= MAX_CELLS
        return aged or is_full

    def sample(self) -> Sample:
        """Sum them up."""
        digest = hashlib.sha256(json.dumps([self.start, self.count, self.types]).encode())
        for values in self.columns.values():
            digest.update(json.dumps(values).encode())
        schema = _trimmed(
            profile(name, self.types[name], values, self.count)
            for name, values in self.columns.items()
        )
        return Sample(
            digest=digest.hexdigest(),
            row_count=self.count,
            start_time=datetime.fromtimestamp(self.start, UTC),
            end_time=datetime.fromtimestamp(self.end, UTC),
            columns=dataset_pb2.DatasetVersion(schema=schema).SerializeToString(),
        )


class Samples:
    """Gathers the samples of every variant that is to be sampled."""

    def __init__(self, control_plane: ControlPlane, files: Files) -> None:
        self._control_plane = control_plane
        self._files = files
        self._rows: dict[tuple[DeploymentName, int], Rows] = {}

    async def run(self, assigned: Callable[[], Mapping[DeploymentName, Assignment]]) -> None:
        """Gather and send until cancelled; whatever goes wrong is not worth what runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(assigned(), time.time())
            except Exception:
                logger.exception("samples not gathered")

    async def look(self, assigned: Mapping[DeploymentName, Assignment], now: float) -> None:
        """Take in what was written, and send what is due, or complete: its variant is gone."""
        wanted = {
            (name, variant.revision): variant.serving.sampling
            for name, assignment in assigned.items()
            for variant in assignment.variants
            if variant.serving.sampling is not None
        }
        for (name, revision), plan in wanted.items():
            rows = self._rows.setdefault((name, revision), Rows(plan))
            for line in await asyncio.to_thread(_take, self._files(variant_key(name, revision))):
                rows.add(line)
        for key, rows in list(self._rows.items()):
            is_gone = key not in wanted
            if rows.count and (is_gone or rows.is_due(now)) and not await self._send(*key, rows):
                continue
            if is_gone:
                del self._rows[key]

    async def _send(self, name: DeploymentName, revision: int, rows: Rows) -> bool:
        """Send rows; say whether they need not be kept."""
        sample = await asyncio.to_thread(rows.sample)
        try:
            await self._control_plane.record_sample(name, revision, sample)
        except (ServiceError, OSError) as error:
            extra = {"deployment": str(name), "revision": revision, "error": str(error)}
            if not isinstance(error, ServiceError) or is_passing(error):
                logger.info("sample not sent, soon again", extra=extra)
                return False
            logger.warning("sample refused", extra=extra)
        self._rows[name, revision] = Rows(rows.plan)
        return True


def _trimmed(columns: Iterable[dataset_pb2.Column]) -> list[dataset_pb2.Column]:
    """Return columns with frequent values while there is room for them in one message."""
    found, size = [], 0
    for column in columns:
        size += sum(len(top.value) for top in column.profile.top_values)
        if size > VALUE_BYTES:
            column.profile.ClearField("top_values")
        found.append(column)
    return found


def _take(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Read lines and remove their files; what cannot be read is left out."""
    lines = []
    for path in files:
        try:
            lines += [json.loads(line) for line in path.read_bytes().splitlines()]
        except (OSError, ValueError) as error:
            logger.warning("samples not read", extra={"path": str(path), "error": str(error)})
        path.unlink(missing_ok=True)
    return lines
