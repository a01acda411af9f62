"""A model server: the process that answers for one version, in the model's own environment."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from services.deployer.agent.child import Child
from services.deployer.agent.resources import Resources
from services.deployer.rollouts.plans import Sampling, ServingSpec

HOST = "127.0.0.1"
EXAMPLE_FILE = "example.json"
SAMPLES = "samples"
SAMPLE_SUFFIX = ".json"
"""Where a model server writes samples of its requests, each file whole at once."""
STOP_SECONDS = 12.0  # the model server itself drains for at most 10
_POLL_SECONDS = 0.02
_IDLE_LOOKS, _IDLE_SECONDS = 4, 0.05
_IN_HAND = re.compile(r"^modelyard_serving_(?:in_flight|queued) (\S+)$", re.MULTILINE)
_TAIL_LINES = 20
# What a model may need of the machine's environment, and what is settled for model servers; never
# the agent's own settings and tokens.
_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LD_LIBRARY_PATH",
    "MODELYARD_SERVING_UNSAFE_FORMATS",
    "PATH",
    "TMPDIR",
    "TZ",
)


class FailureReason(StrEnum):
    """Why a model server does not serve."""

    NEVER_READY = "NEVER_READY"
    SMOKE_FAILED = "SMOKE_FAILED"
    CRASHED = "CRASHED"


class ModelServerError(Exception):
    """A model server that does not serve; the message ends with its last lines."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class ModelServerSpec:
    """What a model server serves, and the Python it runs on; the paths are absolute."""

    python: Path
    bundle: Path
    model: str
    version: str
    serving: ServingSpec = field(default_factory=ServingSpec)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a model server listens on the loopback address."""

    http: int
    grpc: int


class ModelServerProcess:
    """A started model server; it dies with the process that started it."""

    def __init__(self, spec: ModelServerSpec, folder: Path, child: Child) -> None:
        self._spec = spec
        self._folder = folder
        self._child = child
        self._ports: Ports | None = None
        self._overuse = ""
        self._watch = asyncio.create_task(self._end_overuse())

    @classmethod
    async def start(cls, spec: ModelServerSpec, *, folder: Path) -> Self:
        """Start a model server on free ports; `folder` is its own and holds its log."""
        folder = await asyncio.to_thread(_prepare, folder)
        resources = Resources.of(spec.serving)
        arguments = [*resources.command(), str(spec.python)]
        # Without byte code written: a bundle's folder holds what was verified, and nothing else.
        arguments += ["-I", "-B", "-m", "modelyard.serving", "--host", HOST]
        arguments += ["--bundle", str(spec.bundle), "--name", spec.model]
        arguments += ["--version", spec.version, "--http-port", "0", "--grpc-port", "0"]
        arguments += ["--ports-file", str(folder / "ports.json"), *_limits(spec.serving)]
        arguments += _sampling(spec.serving.sampling, folder / SAMPLES)
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        environment |= {"HOME": str(folder), "PYTHONUNBUFFERED": "1", **resources.variables()}
        log = folder / "server.log"
        child = await Child.start(arguments, folder=folder, log=log, environment=environment)
        return cls(spec, folder, child)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._child.pid

    @property
    def ports(self) -> Ports:
        """Return where it listens; only once it was ready."""
        if self._ports is None:
            raise RuntimeError("the model server has not said where it listens")
        return self._ports

    @property
    def is_running(self) -> bool:
        """Say whether the process runs."""
        return self._child.exit_code is None

    async def wait_ready(self, deadline: float) -> None:
        """Wait until it is ready and has answered its example.

        Args:
            deadline: The seconds it may take.

        Raises:
            ModelServerError: It never got ready, failed its example, or ended.
        """
        try:
            async with asyncio.timeout(deadline):
                while not await self._is_ready():
                    if not self.is_running:
                        raise await self.crash()
                    await asyncio.sleep(_POLL_SECONDS)
                await self._smoke()
        except TimeoutError:
            text = f"not ready after {deadline:g} s"
            raise self._failure(FailureReason.NEVER_READY, text) from None

    async def crash(self) -> ModelServerError:
        """Wait until the process has ended and return the error that tells how."""
        code = await self._child.wait()
        self._watch.cancel()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        how = self._overuse or how
        return self._failure(FailureReason.CRASHED, f"the model server ended: {how}")

    async def wait_idle(self, within: float) -> None:
        """Wait until it has no request in hand, several times in a row; at most so many seconds.

        Whoever sent it requests must do so no more.
        """
        idle = 0
        deadline = asyncio.get_running_loop().time() + within
        while idle < _IDLE_LOOKS and asyncio.get_running_loop().time() < deadline:
            status, text = await asyncio.to_thread(_ask, self.ports.http, "GET", "/metrics", b"")
            if status is None:
                return
            idle = 0 if any(float(count) for count in _IN_HAND.findall(text)) else idle + 1
            await asyncio.sleep(_IDLE_SECONDS)

    async def stop(self, grace: float = STOP_SECONDS) -> None:
        """Let it finish what it has in hand, for at most `grace` seconds, and end it."""
        await self._child.stop(grace)
        self._watch.cancel()

    def tail(self, count: int) -> list[str]:
        """Return its last log lines."""
        return self._child.tail(count)

    async def _is_ready(self) -> bool:
        if self._ports is None:
            self._ports = await asyncio.to_thread(_read_ports, self._folder / "ports.json")
        if self._ports is None:
            return False
        path = f"/v2/models/{self._spec.model}/ready"
        status, _ = await asyncio.to_thread(_ask, self._ports.http, "GET", path, b"")
        return status == http.client.OK

    async def _smoke(self) -> None:
        """Ask for the prediction of the bundle's example, if it has one."""
        example = self._spec.bundle / EXAMPLE_FILE
        if not await asyncio.to_thread(example.exists):
            return
        body = await asyncio.to_thread(example.read_bytes)
        path = f"/v2/models/{self._spec.model}/versions/{self._spec.version}/infer"
        status, answer = await asyncio.to_thread(_ask, self.ports.http, "POST", path, body)
        if status != http.client.OK:
            if status is None and not self.is_running:
                raise await self.crash()
            text = f"the example was answered with {status}: {answer[:500]}"
            raise self._failure(FailureReason.SMOKE_FAILED, text)

    async def _end_overuse(self) -> None:
        """End it once it uses more memory than it may."""
        self._overuse = await Resources.of(self._spec.serving).overuse(self.pid)
        self._child.kill()

    def _failure(self, reason: FailureReason, text: str) -> ModelServerError:
        return ModelServerError(reason, "\n".join([text, *self.tail(_TAIL_LINES)]))


def _limits(serving: ServingSpec) -> list[str]:
    """Write how it is served as options; 0 is its own default."""
    wanted: dict[str, float] = {
        "--workers": serving.worker_count,
        "--concurrency": serving.concurrency,
        "--queue": serving.queue_size,
    }
    if serving.batching is not None:
        wanted |= {
            "--batch-size": serving.batching.max_size,
            "--batch-delay": serving.batching.delay_seconds,
        }
    return [part for option, value in wanted.items() if value for part in (option, str(value))]


def _sampling(sampling: Sampling | None, folder: Path) -> list[str]:
    if sampling is None:
        return []
    options = ["--samples", str(folder), "--sample-share", str(sampling.share)]
    return [*options, "--sample-rate", str(sampling.rows_per_second)]


def _prepare(folder: Path) -> Path:
    """Return a folder's absolute path, made anew and empty."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    return folder.resolve()


def _read_ports(path: Path) -> Ports | None:
    try:
        ports = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return Ports(http=ports["http_port"], grpc=ports["grpc_port"])


def _ask(port: int, method: str, path: str, body: bytes) -> tuple[int | None, str]:
    """Return the status and text of an answer; status None: there was none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request(method, path, body=body or None)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, type(error).__name__
    finally:
        connection.close()
