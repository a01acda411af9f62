"""What a build logs on its way to metadata: the spool shipped, points also told as events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
from modelyard._transport.channel import Line
from modelyard.errors import ModelyardError
from modelyard.tracking import records
from modelyard.tracking.shipper import SpoolShipper
from modelyard.tracking.spool import DATA_FILE, DROPPED_FILE, size_of

from services.builder.worker.patience import persist
from services.builder.worker.reporting import EventReporter

logger = logging.getLogger(__name__)

SHIP_SECONDS = 0.3
HEARTBEAT_SECONDS = 20.0
RETRY_SECONDS = 1.0


class RunSpool:
    """A build's spool folder and the one who ships it."""

    def __init__(
        self,
        folder: Path,
        line: Line[grpc.Channel],
        *,
        run: str,
        writer: str,
        credential: Callable[[], str],
        reporter: EventReporter,
    ) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)
        for file in self.files:
            file.touch(mode=0o600)
        self._reporter = reporter
        self._shipping = asyncio.Lock()
        self._shipper = SpoolShipper(
            folder,
            line,
            run=run,
            writer=writer,
            metadata=lambda: (("authorization", f"Bearer {credential()}"),),
        )

    @property
    def files(self) -> tuple[Path, Path]:
        """Return the files that the build's code appends to.

        It sees these two and not their folder, so it cannot put links in their place.
        """
        return self.folder / DATA_FILE, self.folder / DROPPED_FILE

    def note_code(self, facts: dict[str, object]) -> None:
        """Log where the code came from, before anything of it runs."""
        with (self.folder / DATA_FILE).open("ab") as file:
            file.write(records.encode(["c", facts]))

    def note_dataset(self, role: str, dataset: str, digest: str) -> None:
        """Log which data the build reads, as what."""
        facts = {"role": role, "dataset": dataset, "version": {"digest": digest}}
        with (self.folder / DATA_FILE).open("ab") as file:
            file.write(records.encode(["d", facts]))

    async def run(self) -> None:
        """Ship what is there, again and again, until cancelled."""
        heard = time.monotonic()
        while True:
            await asyncio.sleep(SHIP_SECONDS)
            try:
                await self.ship()
                if time.monotonic() - heard >= HEARTBEAT_SECONDS:
                    heard = time.monotonic()
                    async with self._shipping:
                        await asyncio.to_thread(self._shipper.heartbeat)
            except ModelyardError as error:
                logger.warning("spool not shipped", extra={"reason": error.reason})
                await asyncio.sleep(max(RETRY_SECONDS, error.retry_delay or 0.0))

    async def drain(self) -> None:
        """Ship all that is left, however long metadata is away or busy.

        Raises:
            ModelyardError: metadata refuses it.
        """
        await persist(self.ship)

    async def ship(self) -> None:
        """Ship what is there now; each point that arrived is told as an event."""
        async with self._shipping:
            if size_of(self.folder / DATA_FILE) == self._shipper.position:
                return
            shipped = await asyncio.to_thread(self._shipper.ship_available)
            for column in shipped.metrics:
                for step, value in zip(column.steps, column.values, strict=True):
                    self._reporter.metric(column.key, step, value)
