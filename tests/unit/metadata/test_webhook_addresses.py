"""Names that change their minds, and addresses in disguise."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import pytest

from services.metadata.webhooks.addresses import AddressRules
from services.metadata.webhooks.sending import Sender


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - refused
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fe80::1",
        "fe80::1%lo",
        "fd00::1",
        "ff02::1",
    ],
)
async def test_what_is_not_public_is_not_connected_to(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return [address]

    sender = Sender(
        rules=AddressRules(), seconds=2, context=ssl.create_default_context(), resolve=resolve
    )
    outcome = await sender.post("https://hooks.example/", {}, b"{}")
    assert outcome.problem == "its address is not public"


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    connected: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append("")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.9/\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(answers)

    rules = AddressRules.read("127.0.0.1/32")
    sender = Sender(rules=rules, seconds=2, context=ssl.create_default_context(), resolve=resolve)
    url = f"http://hooks.example:{port}/"
    assert (await sender.post(url, {}, b"{}")).problem.startswith("answered 302")
    assert (await sender.post(url, {}, b"{}")).problem == "its address is not public"
    assert len(connected) == 1
    server.close()
