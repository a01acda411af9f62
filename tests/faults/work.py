"""Clients of all kinds at work on one installation, and what came of it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from modelyard import Client
from modelyard.metadata.v1 import version_pb2

from tests.e2e.agent.conftest import register
from tests.e2e.suite import TERMINAL, until
from tests.faults.build_storm import write_source
from tests.faults.journal import read
from tests.faults.orders import BUILT, SETTLED, Deployer, Orderer
from tests.faults.promises import broken
from tests.faults.writers import Caller, Flights, Reader, Registrar, Writer

REGISTRARS = 6
IMPATIENT = 2
"""Of the registrars; with who builds and who deploys, one client in four."""
SERVED, ENVIRONMENT = "served", "storm"


class Work:
    """Who registers, logs, builds, deploys and reads, from `start` until `settle`."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.flights = flights = Flights()
        self._client = client
        # Every byte is looked at after each fault: so many versions are registered for each.
        self._allowed = threading.Semaphore(REGISTRARS)
        self._journals = journals = folder / "journals"
        journals.mkdir()
        names = [f"model-{number}" for number in range(REGISTRARS)]
        for name in (*names, BUILT):
            client.models.create(name)
        client.environments.create(ENVIRONMENT)
        versions = [register(client, folder, SERVED, factor).name for factor in (1, 2)]
        self.registrars: list[Writer] = [
            Registrar(
                *(name, client, flights, journals),
                patient=number >= IMPATIENT,
                allowed=self._allowed,
            )
            for number, name in enumerate(names)
        ]
        self.orderer = Orderer(client, flights, journals, write_source(folder))
        self.writers = [
            *self.registrars,
            self.orderer,
            Deployer(client, flights, journals, environment=ENVIRONMENT, versions=versions),
        ]
        self.reader = Reader(client, flights, [*names, BUILT], folder / "read")
        self._callers: list[Caller] = [*self.writers, self.reader]

    def start(self) -> None:
        """Let them begin."""
        for caller in self._callers:
            caller.start()

    def goes_on(self) -> None:
        """Wait until one more write is acknowledged, and let each registrar register one more."""
        self._allowed.release(REGISTRARS)
        before = self.acknowledged
        until(lambda: self.acknowledged > before or self.problems(), what="work to go on")

    @property
    def acknowledged(self) -> int:
        """How many writes were."""
        return sum(writer.acknowledged for writer in self.writers)

    def problems(self) -> list[str]:
        """Return what clients met with that no fault excuses."""
        return [f"{c.name}: {c.problem!r}" for c in self._callers if c.problem is not None]

    def settle(self) -> None:
        """Stop the clients, and wait for an end of what they began."""
        for caller in self._callers:
            caller.stop()
        for caller in self._callers:
            caller.join(120)
            assert not caller.is_alive(), f"{caller.name} does not come to an end: {caller.where()}"
        builds, get = self._client.builds, self._client.deployments.get
        until(
            lambda: all(build.state in TERMINAL for build in builds.list()),
            seconds=90,
            what="every build to end",
        )
        until(
            lambda: get(SERVED, environment=ENVIRONMENT).state in SETTLED,
            seconds=90,
            what="the deployment to settle",
        )
        until(lambda: not self._pending(), seconds=90, what="every version to be READY")
        self.reader.round()

    def _pending(self) -> list[str]:
        """Return the versions whose bytes are not held yet."""
        return [
            version.name
            for model in self._client.models.list()
            for version in self._client.versions.list(model.name)
            if version.state == version_pb2.VERSION_STATE_PENDING
        ]

    def broken_promises(self) -> list[str]:
        """Return what is not as it was acknowledged, after they settled."""
        return broken(self._client, read(self._journals), ENVIRONMENT)

    def codes(self) -> Counter[str]:
        """Return how calls ended that were not answered."""
        return sum((Counter(dict(caller.codes)) for caller in self._callers), Counter[str]())

    def __str__(self) -> str:
        writes = read(self._journals)
        kinds = Counter(write.kind for write in writes if write.name is not None)
        unknown = sum(write.name is None for write in writes)
        return (
            f"{kinds.total()} writes acknowledged {dict(kinds)}, {unknown} not; "
            f"{len(self.reader.read)} versions read as they showed up; "
            f"ends of calls {dict(self.codes())}"
        )
