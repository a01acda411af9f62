"""Where images may be pushed to, and what a registry that is not there comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from modelyard import images, registries
from modelyard.registries import RegistryError, Target

from tests.servers.http import serving_http
from tests.servers.processes import free_port
from tests.unit.client.test_images import facts, own_layers


@pytest.mark.parametrize(
    ("text", "parts", "is_local"),
    [
        ("localhost:5000/team/churn:7", ("localhost:5000", "team/churn", "7"), True),
        ("127.0.0.3:5000/churn", ("127.0.0.3:5000", "churn", "latest"), True),
        ("registry.example/a/b__c-d:v1.0_x", ("registry.example", "a/b__c-d", "v1.0_x"), False),
        ("127.0.0.1.example/churn", ("127.0.0.1.example", "churn", "latest"), False),
    ],
)
def test_a_target_is_read(text: str, parts: tuple[str, str, str], is_local: bool) -> None:
    target = Target.parse(text)
    assert (target.registry, target.repository, target.tag) == parts
    assert target.is_local is is_local


@pytest.mark.parametrize(
    "text",
    [
        *("", "churn", "team/churn:7", "registry.example", "registry.example/", "a.b/Churn"),
        *("a.b/churn@sha256:" + "0" * 64, "a.b/churn:", "user:word@a.b/churn", "a.b/../churn"),
        *("https://a.b/churn", "a.b/churn:7?x=1", "a.b/churn\n", f"a.b/{'c' * 600}"),
    ],
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no registry/repository:tag"):
        Target.parse(text)


def test_a_registry_that_is_not_there_is_asked_again_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "FIRST_DELAY", 0.0)
    images.write_image(tmp_path / "image", facts(), own_layers(tmp_path))
    target = Target(f"127.0.0.1:{free_port()}", "churn")
    with pytest.raises(RegistryError, match=f"{target.registry} cannot be reached") as raised:
        registries.push(tmp_path / "image", target)
    assert raised.value.passing


class Registry:
    """Takes a token for one request only, and has blobs put on another server."""

    def __init__(self) -> None:
        self.tokens = self.uses = 0
        self.blobs: list[str | None] = []
        """With which credentials blobs came."""
        self.home = self.store = ""

    def answer(self, method: str, path: str, credentials: str | None) -> tuple[int, dict[str, str]]:
        challenge = {"Www-Authenticate": f'Bearer realm="{self.home}/token",service="s"'}
        if path.startswith("/store"):
            self.blobs.append(credentials)
            return 201, {}
        if path.startswith("/token"):
            self.tokens, self.uses = self.tokens + 1, 0
            return 200, {}
        self.uses += 1
        if credentials != f"Bearer t{self.tokens}" or self.uses > 1:
            return 401, challenge
        place = {"Location": f"{self.store}/store"}
        return {"HEAD": (404, {}), "POST": (202, place), "PUT": (201, {})}[method]


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """Serve it; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            credentials = self.headers["Authorization"]
            status, headers = registry.answer(self.command, self.path, credentials)
            body = json.dumps({"token": f"t{registry.tokens}"}).encode()
            self.send_response(status)
            for name, text in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - the library's names

    with serving_http(Handler) as port:
        yield f"127.0.0.1:{port}"


def push_to(registry: Registry, address: str, store: str, folder: Path) -> None:
    """Push an image to a registry at an address, which has its blobs at another."""
    registry.home, registry.store = f"http://{address}", f"http://{store}"
    digest = images.write_image(folder / "image", facts(), own_layers(folder))
    reference = registries.push(folder / "image", Target(address, "churn"))
    assert reference == f"{address}/churn@{digest}"


def test_a_refused_token_is_replaced_and_no_other_server_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "ATTEMPTS", 1)
    registry = Registry()
    with serving(registry) as address, serving(registry) as elsewhere:
        push_to(registry, address, elsewhere, tmp_path)
    assert registry.blobs == [None, None, None]
    assert registry.tokens == 7  # at the start, and for each blob before its upload and its bytes


class Away(Registry):
    """Is away for a moment when it is first asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def answer(self, method: str, path: str, credentials: str | None) -> tuple[int, dict[str, str]]:
        self.asked += 1
        return (503, {}) if self.asked == 1 else super().answer(method, path, credentials)


def test_a_registry_that_is_away_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "FIRST_DELAY", 0.0)
    registry = Away()
    with serving(registry) as address:
        push_to(registry, address, address, tmp_path)
