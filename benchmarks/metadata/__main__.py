"""`python -m benchmarks.metadata [--quick]`: the bars of the metadata service."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.metadata import bars, growth, ours, rival
from benchmarks.metadata.generators import generator
from benchmarks.runner import Measurement, Scale, main
from benchmarks.targets import METADATA_DATABASES
from tests.servers import postgres

# As PostgreSQL ships: what it acknowledges is on the disk.
DURABLE = {"listen_addresses": "127.0.0.1", "max_connections": "200", "shared_buffers": "128MB"}


@dataclass(frozen=True, slots=True)
class Databases:
    """Makes fresh databases of one kind."""

    kind: str
    folder: Path
    server: postgres.PostgresServer | None

    def url(self, name: str, stack: ExitStack) -> str:
        """Make a database and return its URL."""
        if self.server is None:
            return f"sqlite:///{self.folder / name}.db"
        return stack.enter_context(self.server.database())


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group, on each kind of database."""
    print(f"rival: MLflow {rival.VERSION}, {rival.interpreter()}", file=sys.stderr)
    for kind in METADATA_DATABASES:
        with _databases(kind) as databases:
            yield from _against_rival(databases, scale)
            yield from _growth(databases, scale)


def _against_rival(databases: Databases, scale: Scale) -> Iterator[Measurement]:
    folder, runs = databases.folder, scale.runs
    with ExitStack() as stack:
        own = databases.url("own", stack)
        other = databases.url("other", stack)
        theirs = stack.enter_context(rival.running(folder, other, runs=runs))
        server = stack.enter_context(ours.running(folder / "own", own, runs=runs))
        pair = bars.Pair(
            kind=databases.kind,
            scale=scale,
            server=server,
            rival=theirs,
            ours=stack.enter_context(own_generator(server, folder)),
            theirs=stack.enter_context(_their_generator(theirs, folder)),
        )
        yield from bars.measure(pair)


def _growth(databases: Databases, scale: Scale) -> Iterator[Measurement]:
    folder = databases.folder
    with ExitStack() as stack:
        sides = []
        for name, runs in (("small", growth.SMALL), ("large", scale.grown)):
            url = databases.url(name, stack)
            versions = max(runs // 10, growth.MINIMUM_VERSIONS)
            running = ours.running(folder / name, url, runs=runs, versions=versions)
            server = stack.enter_context(running)
            load = stack.enter_context(own_generator(server, folder))
            sides.append(growth.Side(load, versions))
        yield from bars.told(growth.measure(databases.kind, scale, sides[0], sides[1]))


@contextmanager
def _databases(kind: str) -> Iterator[Databases]:
    folder = Path(tempfile.mkdtemp(prefix="modelyard-benchmark-"))
    folder.chmod(0o755)
    try:
        if kind == "sqlite":
            yield Databases(kind, folder, None)
            return
        place = folder / "postgres"
        place.mkdir()
        place.chmod(0o777)
        with postgres.running(place, settings=DURABLE) as server:
            yield Databases(kind, folder, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_generator(server: ours.OurServer, folder: Path):  # type: ignore[no-untyped-def]
    """Run a load generator of ours."""
    environment = {
        "BENCHMARK_SERVER": server.address,
        "BENCHMARK_TOKEN": server.token,
        "MODELYARD_SERVER": server.address,
        "MODELYARD_TOKEN": server.token,
        "MODELYARD_PROJECT": "default",
        "XDG_STATE_HOME": str(folder / "state"),
    }
    command = (sys.executable, "-m", "benchmarks.metadata.load_ours")
    return generator(command, environment, log=folder / "ours.log")


def _their_generator(server: rival.Rival, folder: Path):  # type: ignore[no-untyped-def]
    environment = {
        **rival.QUIET,
        "BENCHMARK_SERVER": server.url,
        "MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "1",
        # Its own retries would hide errors.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    command = (rival.interpreter(), rival.SCRIPTS / "load_rival.py")
    return generator(command, environment, log=folder / "theirs.log")


if __name__ == "__main__":
    main("metadata", measure)
