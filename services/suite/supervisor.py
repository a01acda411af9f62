"""The supervisor: starts the suite's processes in order, restarts what dies, stops all.

A process that says it does not serve any more (its disk failed) is stopped, and so restarted:
at once, then after ever longer rests in which it goes on reading.

Run as `python -m services.suite.supervisor DATA PORT INFERENCE_PORT`, normally
by `modelyard up`, inside the cage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

from services.suite.cage import LIFE_VARIABLE, die_with_parent
from services.suite.children import SERVICES, Child, Layout, children
from services.suite.health import until_not_serving, until_serving
from services.suite.resting import Rests

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
VALKEY_SECONDS = 1.0  # it keeps nothing
FIRST_DELAY = 0.2
LONGEST_DELAY = 5.0
SETTLED_SECONDS = 10.0
LOG_BYTES = 8 * 1024 * 1024


class Supervisor:
    """Keeps the suite's processes running until it is told to stop."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running: dict[str, Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run the suite; return 0 after an orderly stop, 1 when it never got ready."""
        self._layout.prepare()
        self._layout.ready.unlink(missing_ok=True)
        _on_stop(self._stopping)
        keepers = []
        try:
            for child in children(self._layout):
                keepers.append(asyncio.create_task(self._keep(child)))
                if child.name == SERVICES and not await self._services_ready():
                    return 1
            self._layout.ready.touch()
            _say(f"up: services on {self._layout.address}, data in {self._layout.data}")
            await self._stopping.wait()
            return 0
        finally:
            self._stopping.set()
            await self._stop_all()
            for keeper in keepers:
                keeper.cancel()
            self._layout.ready.unlink(missing_ok=True)

    async def _keep(self, child: Child) -> None:
        """Start a process again whenever it ends, ever more slowly while it keeps failing."""
        delay, rests = FIRST_DELAY, Rests()
        while not self._stopping.is_set():
            started = time.monotonic()
            self._running[child.name] = process = await self._start(child)
            watch = asyncio.create_task(self._watch(child, rests))
            status = await process.wait()
            watch.cancel()
            if self._stopping.is_set():
                return
            log = self._layout.logs / f"{child.name}.log"
            _say(f"{child.name} ended with status {status}, see {log}; starting it again")
            delay = FIRST_DELAY if time.monotonic() - started > SETTLED_SECONDS else delay * 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(delay, LONGEST_DELAY)):
                    await self._stopping.wait()

    async def _watch(self, child: Child, rests: Rests) -> None:
        """Stop a process that says it does not serve any more; nobody awaits the outcome."""
        if not child.address:
            return
        try:
            await self._stop_when_not_serving(child, rests)
        except Exception as error:
            _say(f"{child.name} is not watched any more: {error!r}")

    async def _stop_when_not_serving(self, child: Child, rests: Rests) -> None:
        started = time.monotonic()
        await until_not_serving(child.address)
        if self._stopping.is_set():  # as all do while they stop
            return
        rest = rests.after(time.monotonic() - started)
        log = self._layout.logs / f"{child.name}.log"
        told = f"{child.name} says that it does not serve any more, see {log}"
        _say(f"{told}; stopping it in {rest:g} s" if rest else f"{told}; stopping it")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._stopping.wait()
        if not self._stopping.is_set():
            await self._stop(child.name)

    async def _start(self, child: Child) -> Process:
        path = self._layout.logs / f"{child.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *child.command,
                env={**os.environ, **child.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    async def _services_ready(self) -> bool:
        """Wait until the services answer; say where to look when they do not."""
        stopping = asyncio.create_task(self._stopping.wait())
        ready = asyncio.create_task(until_serving(self._layout.address))
        done, _ = await asyncio.wait(
            {stopping, ready}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in (stopping, ready):
            task.cancel()
        if ready in done:
            return True
        if stopping not in done:
            _say(f"the services do not start; see {self._layout.logs / 'services.log'}")
        return False

    async def _stop_all(self) -> None:
        """Stop the processes, the ones that use others first."""
        await asyncio.gather(self._stop("worker"), self._stop("agent"))
        await self._stop(SERVICES)
        await self._stop("valkey", within=VALKEY_SECONDS)

    async def _stop(self, name: str, *, within: float = STOP_SECONDS) -> None:
        process = self._running.get(name)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may end just now, by itself
            process.terminate()
            try:
                async with asyncio.timeout(within):
                    await process.wait()
            except TimeoutError:
                _say(f"{name} does not stop; killing it")
                os.killpg(process.pid, signal.SIGKILL)


def _on_stop(stopping: asyncio.Event) -> None:
    """Stop on a signal, or when the cage's keeper closes the pipe of our life."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    life = os.environ.pop(LIFE_VARIABLE, None)
    if life is not None:
        loop.add_reader(int(life), _end_life, int(life), stopping)
        os.set_inheritable(int(life), False)


def _end_life(life: int, stopping: asyncio.Event) -> None:
    # What is closed stays readable: to look on would take a whole core for the whole stop.
    asyncio.get_running_loop().remove_reader(life)
    stopping.set()


def _say(line: str) -> None:
    print(f"modelyard: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Supervise the suite that the arguments describe."""
    data, port, inference_port = sys.argv[1:]
    layout = Layout(Path(data), int(port), int(inference_port))
    return asyncio.run(Supervisor(layout).run())


if __name__ == "__main__":
    sys.exit(main())
