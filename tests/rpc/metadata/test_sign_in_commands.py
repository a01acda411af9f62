"""Signing in, giving roles and making tokens on the command line, before real services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelyard import Client
from modelyard.errors import ModelyardError

from tests.issuer import AUDIENCE, Issuer, issuing
from tests.rpc.metadata.conftest import Command, Services, running


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    file = folder / "oidc.toml"
    file.write_text(f'[[issuer]]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n')
    with running(folder / "data", MODELYARD_METADATA_OIDC_FILE=str(file)) as services:
        yield services


def test_people_sign_in_on_a_device_and_are_given_roles(
    services: Services,
    issuer: Issuer,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert "contributor" in command("members", "set", "user:ada", "contributor")
    listed = json.loads(command("members", "list", "-o", "json"))
    assert [(m["principal"], m["setter"]) for m in listed] == [("user:ada", "user:admin")]
    assert "none of" in command("members", "set", "user:ada", "king", status=1)
    address, config = services.layout.address, tmp_path / "modelyard.toml"
    monkeypatch.setenv("MODELYARD_CONFIG", str(config))
    monkeypatch.delenv("MODELYARD_TOKEN")
    monkeypatch.delenv("MODELYARD_SERVER")
    issuer.polls = ["authorization_pending", "access_denied"]
    refused = command("login", address, "--issuer", issuer.url, status=1)
    assert "access_denied" in refused
    assert "WDJB-MJHT" in refused
    assert not config.exists()
    issuer.polls = ["authorization_pending"] * 2
    assert "user:ada" in command("login", address, "--issuer", issuer.url)
    assert config.stat().st_mode & 0o777 == 0o600
    assert "default" in command("projects", "show", "default")
    assert "RIGHT_MISSING" in command("projects", "delete", "default", status=1)
    assert "http" in command("login", address, "--issuer", "http://login.example.com", status=1)
    # A job in CI has its issuer's token in a file, or in a variable, and a new one each time.
    token = tmp_path / "token"
    token.write_text(issuer.token("ada") + "\n")
    assert "user:ada" in command("login", address, "--token-file", str(token))
    assert "eyJ" not in config.read_text()
    token.write_text("outdated")
    assert "INVALID_CREDENTIAL" in command("projects", "show", "default", status=1)
    monkeypatch.setenv("MODELYARD_SERVER", address)
    monkeypatch.setenv("MODELYARD_TOKEN", issuer.token("ada"))
    assert "default" in command("projects", "show", "default")


def test_tokens_are_made_for_a_while_and_for_less(
    services: Services, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("members", "set", "service:nightly", "builder")
    options = ("--role", "default=viewer", "--days", "1", "-o", "json")
    less = json.loads(command("tokens", "create", "service:nightly", *options))
    full = json.loads(command("tokens", "create", "service:nightly", "-o", "json"))
    assert "none of" in command("tokens", "create", "x", "--right", "rule", status=1)
    listed = json.loads(command("tokens", "list", "-o", "json"))
    expiry = {token["name"]: token.get("expire_time") for token in listed}
    assert expiry[less["token"]["name"]] is not None
    assert expiry[full["token"]["name"]] is None
    with services.client(less["secret"]) as client:
        (rights,) = client.tokens.introspect().project_rights
        assert len(rights.rights) == 1
    with services.client(full["secret"]) as client:
        (rights,) = client.tokens.introspect().project_rights
        assert len(rights.rights) == 3
    assert "revoked" in command("tokens", "revoke", less["token"]["name"])
    command("members", "remove", "service:nightly")


@pytest.mark.slow
def test_a_revoked_token_ends_calls_and_streams_of_every_service(
    services: Services, client: Client
) -> None:
    made = client.tokens.create("user:mallory", roles={"default": "viewer"})
    with services.client(made.secret) as mallory, ThreadPoolExecutor() as threads:
        calls: dict[str, Callable[[], object]] = {
            "metadata": lambda: list(mallory.models.list()),
            "artifact": mallory.storage.usage,
            "builder": lambda: list(mallory.builds.list()),
            "deployer": lambda: list(mallory.deployments.list()),
            "stream": lambda: list(watched),
        }
        watched = mallory.watch()
        first, number = threads.submit(next, watched), 0
        while not first.done():
            number += 1
            client.models.create(f"watched-{number}")
        for name in set(calls) - {"stream"}:
            calls[name]()
        ended = {name: threads.submit(_until_refused, one) for name, one in calls.items()}
        client.tokens.revoke(made.token.name)
        revoked = time.monotonic()
        lasted = {name: max(end.result() - revoked, 0.0) for name, end in ended.items()}
    print({name: f"{seconds:.1f} s" for name, seconds in lasted.items()})
    assert lasted.pop("stream") < 60
    assert max(lasted.values()) < 5


def _until_refused(call: Callable[[], object]) -> float:
    while True:
        try:
            call()
        except ModelyardError as error:
            if error.reason != "INVALID_CREDENTIAL":
                raise
            return time.monotonic()
