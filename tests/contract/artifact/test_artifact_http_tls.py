"""The service's HTTP server with TLS: its certificate is replaced while it runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from services.artifact.http.server import HttpServer, HttpSettings
from services.common.settings import SettingsError
from tests.certificates import Authority


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def test_a_certificate_is_replaced_while_requests_go_on(tmp_path: Path) -> None:
    authority = Authority()
    first, second = authority.issue("first"), authority.issue("second")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.touch(mode=0o600)
    key.write_bytes(first[0])
    certificate.write_bytes(first[1])
    server = HttpServer(HttpSettings("127.0.0.1:0", str(certificate), str(key), ""))
    serving = asyncio.create_task(server.run_forever([web.get("/", hello)]))
    place = ("127.0.0.1", urlsplit(server.url).port or 0)
    trusted = ssl.create_default_context(cadata=authority.pem.decode())
    async with aiohttp.ClientSession() as kept:

        async def shown() -> str:
            async with kept.get(server.url, ssl=trusted) as answer:
                assert await answer.text() == "hello"
            return await asyncio.to_thread(ssl.get_server_certificate, place)

        assert await shown() == first[1].decode()
        certificate.write_bytes(second[1])
        assert await shown() == first[1].decode()  # without its key it is worth nothing
        key.write_bytes(second[0])
        assert await shown() == second[1].decode()
        key.chmod(0o644)
        assert await shown() == second[1].decode()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for settings, problem in (
        (HttpSettings("127.0.0.1:0", str(certificate), str(key), ""), "everybody may read"),
        (HttpSettings("127.0.0.1:0", str(certificate), "", ""), "go together"),
    ):
        with pytest.raises(SettingsError, match=problem):
            HttpServer(settings)


def test_a_url_keeps_what_passes_secret() -> None:
    def served(url: str, listen: str = "127.0.0.1:0") -> str:
        return HttpServer(HttpSettings(listen, "", "", url)).url

    for url in ("https://files.example.com", "http://127.0.0.1:7081", "http://[::1]/modelyard"):
        assert served(url + "/") == url
        assert served(url, listen="") == ""
    for url in ("http://files.example.com", "http://10.0.0.7:7081", "http://0.0.0.0"):
        with pytest.raises(SettingsError, match="https://"):
            served(url)
    for url in ("files.example.com", "ftp://localhost", "https:///x", "https://[x", "https://x?y"):
        with pytest.raises(SettingsError, match="is no URL"):
            served(url)
