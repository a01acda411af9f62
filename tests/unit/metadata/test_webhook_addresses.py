"""Names that change their minds, and addresses in disguise."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.common.errors import Reason, ServiceError
from services.metadata.webhooks.addresses import AddressRules
from services.metadata.webhooks.sending import Sender, tls_context
from tests.certificates import make_certificate


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


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "http://example.com/x",
        "ftp://example.com/",
        "https://",
        "https://:443/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[fe80::1%25eth0]/",
        "https://user:pw@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com/#part",
        "https://example.com/\r\nHost: other",
        "https://exämple.com/",
        f"https://example.com/{'x' * 2000}",
    ],
)
def test_addresses_that_no_webhook_may_have_are_refused(url: str) -> None:
    with pytest.raises(ServiceError) as raised:
        AddressRules().check(url, "webhook.url")
    assert raised.value.reason is Reason.INVALID_FIELD


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/a?b=c",
        "https://8.8.8.8:8443/",
        "https://[2606:4700::1]/",
        "https://10.1.2.3/",
        "http://10.1.2.3/",
    ],
)
def test_other_addresses_are_taken(url: str) -> None:
    assert AddressRules.read("10.1.0.0/16").check(url, "webhook.url") == url


async def test_a_certificate_must_be_that_of_the_name(tmp_path: Path) -> None:
    key, certificate = make_certificate("hooks.example")
    pem = tmp_path / "server.pem"
    pem.write_bytes(key + certificate)
    authority = tmp_path / "authority.pem"
    authority.write_bytes(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(pem)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own)
    port = server.sockets[0].getsockname()[1]
    outcomes = [
        await Sender(
            rules=AddressRules.read("127.0.0.1/32"),
            seconds=5,
            context=tls_context(trusted),
            resolve=resolve,
        ).post(f"https://{name}:{port}/", {}, b"{}")
        for name, trusted in (
            ("hooks.example", str(authority)),
            ("other.example", str(authority)),
            ("hooks.example", ""),
        )
    ]
    assert outcomes[0].delivered
    assert outcomes[1].problem.startswith("its certificate is not valid: Hostname mismatch")
    assert outcomes[2].problem.startswith("its certificate is not valid: self-signed")
    server.close()
