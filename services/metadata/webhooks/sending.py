"""Posting to an address that somebody else chose: guarded, bounded, without redirects.

The name is resolved here, each address it has is checked, and the connection is made
to a checked address itself: a name that resolves differently a moment later gains
nothing. TLS and the Host header keep the name. Proxies of the environment are not
used, and of the answer only the status is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from services.metadata.webhooks.addresses import Address, AddressRules, Target
from services.metadata.webhooks.domain import Outcome

RESOLVERS = 32
USER_AGENT = "Modelyard-Webhooks/1"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Lookups take their time: they may not keep the process's other threads waiting.
_LOOKUPS = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="webhook-lookup")


class _ProblemError(Exception):
    """Why there was no answer, in words for the delivery log."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, in the order in which to try them."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        _LOOKUPS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses only, to exactly what was checked."""

    def __init__(self, rules: AddressRules, resolve: Resolve, *, plain: bool) -> None:
        self._rules = rules
        self._resolve = resolve
        self._plain = plain
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of a name's allowed addresses that answers."""
        allowed = [a for a in await self._addresses(host, port) if self._allow(a)]
        if not allowed:
            raise _ProblemError("its address is not public")
        for address in allowed[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, port, timeout, socket_options)
        return await self._connect(allowed[-1], port, timeout, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no webhook has such an address."""
        raise _ProblemError("its address is not public")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            # What has a scope, as `fe80::1%eth0`, is never public.
            return [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError):
            raise _ProblemError("its name is not found") from None

    def _allow(self, address: Address) -> bool:
        return self._rules.allow(address, plain=self._plain)

    async def _connect(
        self, address: Address, port: int, seconds: float | None, options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        return await self._inner.connect_tcp(
            str(address), port, timeout=seconds, socket_options=options
        )


class Sender:
    """Posts, one connection a request."""

    def __init__(
        self,
        *,
        rules: AddressRules,
        seconds: float,
        context: ssl.SSLContext,
        resolve: Resolve = resolve,
    ) -> None:
        self._seconds = seconds
        self._pools = {
            scheme: httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=None,
                max_keepalive_connections=0,
                network_backend=GuardedBackend(rules, resolve, plain=scheme == "http"),
            )
            for scheme in ("https", "http")
        }

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Post a body; whatever goes wrong is the outcome's problem."""
        try:
            target = Target.parse(url)
            async with asyncio.timeout(self._seconds):
                return await self._post(target, headers, body)
        except TimeoutError:
            return Outcome(problem=f"no answer within {self._seconds:g} s")
        except (_ProblemError, ValueError) as error:
            return Outcome(problem=str(error))
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            return Outcome(problem=_explain(error))
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            return Outcome(problem="it does not speak HTTP")

    async def _post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Outcome:
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        all_headers = {"Host": target.authority, "User-Agent": USER_AGENT, **headers}
        async with self._pools[target.scheme].stream(
            "POST", url, headers=list(all_headers.items()), content=body
        ) as response:
            return Outcome(response.status, _refusal(response.status))


def _refusal(status: int) -> str:
    """Say what is wrong with an answer; nothing if it is success."""
    if 200 <= status < 300:
        return ""
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return f"answered {status}{redirect}"


def _explain(error: Exception) -> str:
    """Say what a failed connection was about; never the error's own text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.TimeoutException):
        return "it does not answer in time"
    return "no connection" if isinstance(error, httpcore.ConnectError) else "connection lost"


def tls_context(root_certificates: str) -> ssl.SSLContext:
    """Trust the system's authorities and those of a PEM file, if one is named."""
    context = ssl.create_default_context()
    if root_certificates:
        context.load_verify_locations(cafile=root_certificates)
    return context
