"""The HTTP edge of the model server: a small ASGI application."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from modelyard.serving import http_codec
from modelyard.serving.domain import (
    EXTENSIONS,
    MAX_REQUEST_BYTES,
    SERVER_NAME,
    VERSION_HEADER,
    Refusal,
    ServingError,
    invalid,
)
from modelyard.serving.gate import Gate
from modelyard.serving.jobs import Job, Protocol
from modelyard.serving.metrics import CONTENT_TYPE

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LENGTH_HEADER = "inference-header-content-length"
_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?/?"
)
_STATUSES = {
    Refusal.NOT_FOUND: 404,
    Refusal.INVALID: 400,
    Refusal.TOO_LARGE: 413,
    Refusal.OVERLOADED: 503,
    Refusal.NOT_READY: 503,
    Refusal.FAILED: 500,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    json_length: int | None = None
    kind: str = "application/json"


class Application:
    """Answers the protocol's HTTP requests through a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._pages: dict[str, Callable[[], Answer]] = {
            "/v2": lambda: _json(200, _server()),
            "/v2/health/live": lambda: _json(200, {"live": True}),
            "/v2/health/ready": self._ready,
            "/metrics": lambda: Answer(200, gate.metrics.text(), kind=CONTENT_TYPE),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self._route(scope, receive)
        except ServingError as error:
            answer = _json(_STATUSES[error.refusal], {"error": error.message})
        except Exception:
            logger.exception("request failed")
            answer = _json(500, {"error": "internal error"})
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": self._headers(answer),
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"].rstrip("/"), scope["method"]
        if path in self._pages:
            return _only("GET", method) or self._pages[path]()
        found = _MODEL.fullmatch(path)
        if found is None:
            raise ServingError(Refusal.NOT_FOUND, "there is nothing at this path")
        self._gate.description.check(found["model"], found["version"] or "")
        if found["verb"] == "infer":
            return _only("POST", method) or await self._infer(scope, receive)
        if found["verb"] == "ready":
            return _only("GET", method) or self._ready()
        return _only("GET", method) or _json(200, http_codec.describe(self._gate.description))

    def _ready(self) -> Answer:
        return _json(200 if self._gate.is_ready else 503, {"ready": self._gate.is_ready})

    async def _infer(self, scope: Scope, receive: Receive) -> Answer:
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        if headers.get("content-encoding", b"identity") != b"identity":
            raise invalid("Content-Encoding is not supported")
        json_length = _length(headers.get(_LENGTH_HEADER))
        body = await _read(receive)
        result = await self._gate.infer(Job(Protocol.HTTP, body, json_length))
        kind = "application/json" if result.json_length is None else "application/octet-stream"
        return Answer(200, result.body, result.json_length, kind)

    def _headers(self, answer: Answer) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", answer.kind.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            (VERSION_HEADER.encode(), self._gate.description.version.encode()),
        ]
        if answer.json_length is not None:
            headers.append((_LENGTH_HEADER.encode(), str(answer.json_length).encode()))
        if answer.status == _STATUSES[Refusal.OVERLOADED]:
            headers.append((b"retry-after", b"1"))
        return headers


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise invalid("the request ended early")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_REQUEST_BYTES:
            text = f"the request exceeds {MAX_REQUEST_BYTES} bytes"
            raise ServingError(Refusal.TOO_LARGE, text)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,10}", value):
        raise invalid("Inference-Header-Content-Length must be a number")
    return int(value)


def _only(allowed: str, method: str) -> Answer | None:
    if method in (allowed, "HEAD" if allowed == "GET" else allowed):
        return None
    return _json(405, {"error": f"only {allowed} is allowed here"})


def _json(status: int, document: dict[str, Any]) -> Answer:
    return Answer(status, http_codec.dump(document))


def _server() -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": version("modelyard"), "extensions": list(EXTENSIONS)}
