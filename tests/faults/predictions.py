"""Callers of one live model, over HTTP and gRPC, on kept and on new connections.

Nothing is tried again: whatever is not the right answer of the version that gave it is a failure.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

TIMEOUT = 20.0
PAUSE = 0.005
KINDS = ("HTTP kept", "HTTP new", "gRPC kept", "gRPC new")
INPUT = 3.0
BODY = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [INPUT]}]}
# A failed channel would wait longer and longer before it connects again, which no caller asked for.
_OWN_CHANNEL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
_PASSING = (httpx.HTTPError, grpc.aio.AioRpcError, ValueError, KeyError, IndexError)


@dataclass(slots=True)
class Seen:
    """What the callers got so far."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Right answers, by the kind of caller and the version that answered."""
    failures: list[tuple[float, str]] = field(default_factory=list)
    """When and how each failure failed."""

    @property
    def total(self) -> int:
        """Return how many requests were made."""
        return self.answers.total() + len(self.failures)

    def of(self, version: str) -> dict[str, int]:
        """Return how many answers of a version each kind of caller got."""
        return {kind: self.answers[kind, version] for kind in KINDS}

    def versions(self) -> Counter[str]:
        """Return how many answers each version gave."""
        found: Counter[str] = Counter()
        for (_, version), count in list(self.answers.items()):
            found[version] += count
        return found


Ask = Callable[[], Awaitable[str]]


class Caller:
    """Asks one address for one model's predictions; the factor of version N is N."""

    def __init__(self, address: str, model: str) -> None:
        self._address = address
        self._model = model
        self._request = pb.ModelInferRequest(model_name=model)
        tensor = self._request.inputs.add(name="x", datatype="FP64", shape=[1])
        tensor.contents.fp64_contents.append(INPUT)

    async def over_http(self, client: httpx.AsyncClient) -> str:
        """Ask once; return the version that gave the right answer, ValueError if it is wrong."""
        url = f"http://{self._address}/v2/models/{self._model}/infer"
        answer = await client.post(url, json=BODY)
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code}: {answer.text[:200]}")
        said = answer.json()
        return _checked(str(said["model_version"]), said["outputs"][0]["data"][0])

    async def over_grpc(self, stub: Any) -> str:
        """Ask once; return the version that gave the right answer, ValueError if it is wrong."""
        answer = await stub.ModelInfer(self._request, timeout=TIMEOUT)
        value = answer.outputs[0].contents.fp64_contents[0]
        return _checked(answer.model_version, value)

    async def keep_asking(self, kind: str, seen: Seen, stop: asyncio.Event) -> None:
        """Ask in one of the ways until told to stop."""
        protocol, _, connection = kind.partition(" ")
        connected = self._http if protocol == "HTTP" else self._grpc
        while not stop.is_set():
            async with connected() as ask:
                await _count(kind, ask, seen)
                while connection == "kept" and not stop.is_set():
                    await _count(kind, ask, seen)

    def _http(self) -> Any:
        return _Connected(httpx.AsyncClient(timeout=TIMEOUT), self.over_http)

    def _grpc(self) -> Any:
        channel = grpc.aio.insecure_channel(self._address, options=_OWN_CHANNEL)
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        return _Connected(channel, lambda _: self.over_grpc(stub))


class _Connected:
    """A connection, entered as the way to ask over it."""

    def __init__(self, connection: Any, ask: Callable[[Any], Awaitable[str]]) -> None:
        self._connection, self._ask = connection, ask

    async def __aenter__(self) -> Ask:
        connection = await self._connection.__aenter__()
        return lambda: self._ask(connection)

    async def __aexit__(self, *error: object) -> None:
        await self._connection.__aexit__(*error)


@contextmanager
def predictions(address: str, model: str, *, each: int = 1) -> Iterator[Seen]:
    """Have so many callers of each kind ask all the time, in a thread of their own."""
    seen, loop, stop = Seen(), asyncio.new_event_loop(), asyncio.Event()
    caller = Caller(address, model)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind in KINDS * each:
                tasks.create_task(caller.keep_asking(kind, seen, stop))

    thread = threading.Thread(target=lambda: loop.run_until_complete(work()), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(2 * TIMEOUT)
        assert not thread.is_alive()
        loop.close()


async def _count(kind: str, ask: Ask, seen: Seen) -> None:
    try:
        version = await ask()
    except _PASSING as error:
        seen.failures.append((time.monotonic(), f"{kind}: {_text(error)}"))
    else:
        seen.answers[kind, version] += 1
    await asyncio.sleep(PAUSE)


def _checked(version: str, value: float) -> str:
    if value != INPUT * int(version):
        raise ValueError(f"version {version} answered {value}")
    return version


def _text(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"
