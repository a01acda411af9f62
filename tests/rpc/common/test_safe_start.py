"""What is not safe is not started: one clear line, and a status that is not 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from services.common.safe_start import check_redis, check_secret
from services.common.settings import SettingsError
from tests.certificates import make_certificate

LINES = {
    "plaintext for all": "0.0.0.0:0 is a public address: it needs a TLS certificate",
    "plaintext to others": "suite.example.com:7070 needs root certificates",
    "reflection for all": "0.0.0.0:0 is a public address: no reflection there",
    "peers without TLS": "the peers' authority needs a TLS certificate of the server's own",
    "a list without an authority": "the peers' revocations need the peers' authority",
    "no list": "absent.pem: No such file or directory",
    "readable TLS key": "key.pem: everybody may read this secret; chmod o= it",
    "readable token": "admin.token: everybody may read this secret; chmod o= it",
    **{
        f"readable token of {program}": "own.token: everybody may read this secret; chmod o= it"
        for program in ("builder", "deployer", "builder.worker", "deployer.agent")
    },
    "short token": "admin.token: must hold a token, `myd_` and 43 characters; delete it",
    "readable secret key": "fernet: everybody may read this secret; chmod o= it",
    "short secret key": "fernet: must hold a key a line, 32 bytes in base64",
    "shipped S3 secret": "the secret key of S3 is still the one that was shipped; choose one",
    "short S3 secret": "the secret key of S3 has less than 16 characters",
    "open data folder": "data: everybody may write to this folder; chmod o= it",
    "open database folder": "data: everybody may write to this folder; chmod o= it",
    "open token folder": "tokens: everybody may write to this folder; chmod o= it",
    "open redis": "redis at 192.0.2.1 is on the network: it needs a password",
    "shipped redis": "the password of redis is still the one that was shipped; choose one",
}
Case = tuple[str, dict[str, str]]


def file(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def folder(path: Path, mode: int) -> str:
    path.mkdir(parents=True)
    path.chmod(mode)
    return str(path)


def arranged(root: Path) -> dict[str, Case]:
    """Arrange a folder a case; return the program and its environment."""
    own = {name: root / name.replace(" ", "-") for name in LINES}
    artifact = {**on_the_network(root / "pair"), **of_storage(own)}
    cases = {case: ("artifact", variables) for case, variables in artifact.items()}
    cases |= {case: ("metadata", variables) for case, variables in of_secrets(own).items()}
    cases |= of_own_tokens(own)
    return {
        case: (program, {**places(own[case]), **variables})
        for case, (program, variables) in cases.items()
    }


def on_the_network(pair: Path) -> dict[str, dict[str, str]]:
    key, certificate = make_certificate()
    authority = file(pair / "certificate.pem", certificate)
    tls = {"TLS_CERTIFICATE": authority, "TLS_KEY": file(pair / "private" / "key.pem", key)}
    public = {"LISTEN": "0.0.0.0:0"}
    cases = {
        "plaintext for all": public,
        "reflection for all": {**public, **tls, "REFLECTION": "true"},
        "peers without TLS": {"PEER_AUTHORITY": authority},
        "a list without an authority": {"PEER_REVOCATIONS": f"{pair}/absent.pem"},
        "no list": {
            **tls,
            "PEER_AUTHORITY": authority,
            "PEER_REVOCATIONS": f"{pair}/absent.pem",
        },
        "readable TLS key": {**public, **tls, "TLS_KEY": file(pair / "key.pem", key, 0o644)},
    }
    prefixed = {
        case: {f"MODELYARD_ARTIFACT_{name}": value for name, value in variables.items()}
        for case, variables in cases.items()
    }
    elsewhere = {"MODELYARD_SUITE_ADDRESS": "suite.example.com:7070"}
    return {**prefixed, "plaintext to others": elsewhere}


def of_storage(own: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    folder(own["open data folder"] / "data", 0o777)
    return {
        "shipped S3 secret": s3("change-me-before-the-first-start"),
        "short S3 secret": s3("password"),
        "open data folder": {},
    }


def of_secrets(own: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    token = f"myd_{'x' * 43}".encode()
    file(own["readable token"] / "tokens" / "admin.token", token, 0o644)
    file(own["short token"] / "tokens" / "admin.token", b"myd_admin")
    folder(own["open token folder"] / "tokens", 0o777)
    database = folder(own["open database folder"] / "data", 0o777)
    readable = file(own["readable secret key"] / "fernet", Fernet.generate_key(), 0o644)
    short = file(own["short secret key"] / "fernet", b"secret")
    shipped = "redis://:change-me-before-the-first-start@192.0.2.1/0"
    return {
        "readable token": {},
        "short token": {},
        "open token folder": {},
        "open database folder": {"MODELYARD_METADATA_DATABASE_URL": f"sqlite:///{database}/m.db"},
        "readable secret key": {"MODELYARD_METADATA_WEBHOOK_KEY_FILE": readable},
        "short secret key": {"MODELYARD_METADATA_WEBHOOK_KEY_FILE": short},
        "open redis": {"MODELYARD_REDIS_URL": "redis://192.0.2.1:6379/0"},
        "shipped redis": {"MODELYARD_REDIS_URL": shipped},
    }


def of_own_tokens(own: Mapping[str, Path]) -> dict[str, Case]:
    """Whoever has a token of its own, with one that everybody may read."""
    cases: dict[str, Case] = {}
    for case, place in own.items():
        _, is_one, program = case.partition("readable token of ")
        if is_one:
            token = file(place / "own.token", f"myd_{'x' * 43}".encode(), 0o644)
            prefix = f"MODELYARD_{program.rpartition('.')[2].upper()}_"
            cases[case] = (
                program,
                {
                    f"{prefix}TOKEN_FILE": token,
                    f"{prefix}DATA": f"{place}/data",
                    f"{prefix}DATABASE_URL": f"sqlite:///{place}/own.db",
                    f"{prefix}LISTEN": "127.0.0.1:0",
                },
            )
    return cases


def s3(secret: str) -> dict[str, str]:
    names = {
        "ENDPOINT": "http://127.0.0.1:1",
        "BUCKET": "b",
        "ACCESS_KEY": "a",
        "SECRET_KEY": secret,
    }
    return {f"MODELYARD_ARTIFACT_S3_{name}": value for name, value in names.items()}


def places(root: Path) -> dict[str, str]:
    return {
        "MODELYARD_METADATA_DATABASE_URL": f"sqlite:///{root}/metadata/m.db",
        "MODELYARD_METADATA_TOKENS_DIR": f"{root}/tokens",
        "MODELYARD_METADATA_LISTEN": "127.0.0.1:0",
        "MODELYARD_ARTIFACT_DATA": f"{root}/data",
        "MODELYARD_ARTIFACT_LISTEN": "127.0.0.1:0",
        "MODELYARD_LOG_LEVEL": "ERROR",
    }


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """How a service ended, and what it said, by case."""
    cases = arranged(tmp_path_factory.mktemp("unsafe"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.rpc.common.starting"],
        input=json.dumps(cases),
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return {case: (status, said) for case, (status, said) in json.loads(done.stdout).items()}


@pytest.mark.parametrize("case", LINES)
def test_what_is_not_safe_does_not_start(ended: dict[str, tuple[int, str]], case: str) -> None:
    status, said = ended[case]
    [line] = said.splitlines()
    assert line.startswith("modelyard: bad setting: ")
    assert LINES[case] in line
    assert status == 2


def test_what_is_safe_enough_passes() -> None:
    for url in ("", "unix:///run/valkey.sock", "redis://localhost/0", "redis://127.0.0.1:6379/0"):
        check_redis(url)
    check_redis("rediss://modelyard:0123456789abcdef@redis.example.com:6380/0")
    with pytest.raises(SettingsError, match="less than 16"):
        check_redis("redis://:secret@redis.example.com/0")
    check_secret("a secret", "")
