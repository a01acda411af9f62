"""`python -m benchmarks.artifact [--quick]`: the bars of the artifact service."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.artifact import bare, bars, direct
from benchmarks.metadata import generating, ours, rival
from benchmarks.metadata.generators import generator
from benchmarks.runner import Measurement, Scale, main


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group, on disk; the direct path on S3."""
    print(f"rival: MLflow {rival.VERSION}, {rival.interpreter()}", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="modelyard-benchmark-"))
    try:
        with ExitStack() as stack:
            yield from bars.measure(_setting(scale, folder, stack))
        yield from direct.measure(scale, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _setting(scale: Scale, folder: Path, stack: ExitStack) -> bars.Setting:
    database = f"sqlite:///{folder / 'theirs.db'}"
    theirs = stack.enter_context(rival.running(folder, database, runs=1))
    server = stack.enter_context(ours.running(folder / "own", runs=1))
    address = {"MODELYARD_SERVER": server.address, "MODELYARD_TOKEN": server.token}
    environment = {**os.environ, **address}
    own = (sys.executable, "-m", "benchmarks.artifact.load_ours")
    other = (rival.interpreter(), Path(__file__).parent / "load_rival.py")
    their_environment = {
        **rival.QUIET,
        "BENCHMARK_SERVER": theirs.url,
        "PYTHONPATH": str(Path(generating.__file__).parent),
    }
    return bars.Setting(
        scale=scale,
        folder=folder,
        ours=stack.enter_context(generator(own, address, log=folder / "ours.log")),
        theirs=stack.enter_context(generator(other, their_environment, log=folder / "theirs.log")),
        bare=stack.enter_context(bare.running()),
        server=server.process,
        environment=environment,
    )


if __name__ == "__main__":
    main("artifact", measure)
