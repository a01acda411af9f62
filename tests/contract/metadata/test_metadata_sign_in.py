"""Signing in through an OIDC issuer: whom its tokens stand for, and which are refused."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc.jwk import ECKey, RSAKey
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import member_pb2, member_service_pb2, project_pb2
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import project_service_pb2 as pb

from services.common.settings import SettingsError
from services.metadata.oidc import keys as oidc_keys
from services.metadata.oidc.domain import read_issuers
from services.metadata.settings import MetadataSettings
from tests.contract.metadata.desk import PROJECT, Desk, metadata_running
from tests.issuer import AUDIENCE, Issuer, issuing, rsa_key

FORGED = (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIAL")
AWAY = (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")
LACKING = (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
WHO = pb.IntrospectCredentialRequest()
Members = member_service_pb2


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def settings(settings: MetadataSettings, issuer: Issuer, tmp_path: Path) -> MetadataSettings:
    file = tmp_path / "oidc.toml"
    file.write_text(
        f'[[issuer]]\nissuer = "{issuer.url}"\naudience = "{AUDIENCE}"\n'
        'principal = "user:{sub}"\nrequire = { team = "risk" }\noperators = ["user:olga"]\n'
    )
    return replace(settings, oidc_file=str(file))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let unknown keys be asked for as often as a test needs."""
    monkeypatch.setattr(oidc_keys, "PAUSE_SECONDS", 0.0)


async def set_member(desk: Desk, principal: str, role: str, parent: str = PROJECT) -> None:
    member = member_pb2.Member(principal=principal, role=project_pb2.Role.Value(f"ROLE_{role}"))
    request = Members.SetMemberRequest(parent=parent, member=member)
    await desk.call(desk.members.SetMember, request)


def critical(key: RSAKey, token: str) -> str:
    """Sign a token anew, with a header that must be understood."""
    header = encoded(b'{"alg":"RS256","kid":"one","crit":["x"],"x":1}')
    signed = f"{header}.{token.split('.')[1]}"
    assert isinstance(key.private_key, rsa.RSAPrivateKey)
    signature = key.private_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{encoded(signature)}"


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


async def verdict(desk: Desk, credential: str) -> tuple[grpc.StatusCode, str]:
    caller = desk.as_caller(credential)
    return await caller.refused(caller.projects.IntrospectCredential, WHO)


async def test_people_sign_in_and_may_do_what_their_membership_gives(
    admin: Desk, issuer: Issuer
) -> None:
    ada = admin.as_caller(issuer.token("ada", team="risk"))
    found = await ada.call(ada.projects.IntrospectCredential, WHO)
    assert (found.principal, list(found.project_rights)) == ("user:ada", [])
    assert abs(found.expire_time.seconds - time.time() - 600) < 60
    create = models_pb.CreateModelRequest(parent=PROJECT, model_id="churn")
    assert await ada.refused(ada.models.CreateModel, create) == LACKING
    await set_member(admin, "user:ada", "CONTRIBUTOR")
    await ada.call(ada.models.CreateModel, create)
    rights = [access_pb2.RIGHT_READ, access_pb2.RIGHT_WRITE]
    delegate = pb.IssueDelegationRequest(resource=f"{PROJECT}/builds/b", rights=rights)
    work = ada.as_caller((await ada.call(ada.projects.IssueDelegation, delegate)).delegation)
    await work.call(work.models.GetModel, models_pb.GetModelRequest(name=f"{PROJECT}/models/churn"))
    await set_member(admin, "user:ada", "VIEWER")
    assert await ada.refused(ada.models.CreateModel, create) == LACKING
    assert await work.refused(work.models.CreateModel, create) == LACKING
    gone = Members.RemoveMemberRequest(parent=PROJECT, principal="user:ada")
    await admin.call(admin.members.RemoveMember, gone)
    assert await work.refused(work.projects.IntrospectCredential, WHO) == FORGED
    olga = admin.as_caller(issuer.token("olga", team="risk"))
    await olga.call(olga.projects.CreateProject, pb.CreateProjectRequest(project_id="risk"))
    assert issuer.fetches == 1


async def test_what_an_issuer_did_not_mean_for_us_is_refused(admin: Desk, issuer: Issuer) -> None:
    now, stranger, public = int(time.time()), rsa_key("one", "stranger"), issuer.keys[0]
    assert isinstance(public, RSAKey)
    claims: list[dict[str, Any]] = [
        {"aud": "another"},
        {"aud": None},
        {"aud": [{"modelyard": 1}]},
        {"iss": "http://127.0.0.1:1"},
        {"iss": [issuer.url]},
        {"exp": now - 61},
        {"exp": None},
        {"exp": "never"},
        {"exp": float("nan")},
        {"exp": True},
        {"nbf": now + 120},
        {"iat": now + 120},
        {"sub": None},
        {"sub": 7},
        {"sub": " "},
        {"sub": "a\nb"},
        {"sub": "x" * 300},
        {"team": "sales"},
        {"team": None},
    ]
    refused = [issuer.token(**{"team": "risk", **wrong}) for wrong in claims]
    headers: list[dict[str, Any]] = [
        {"typ": "modelyard-delegation+jwt"},
        {"typ": "logout+jwt"},
        {"kid": "other"},
    ]
    refused += [issuer.token(team="risk", header=wrong) for wrong in headers]
    refused.append(issuer.token(team="risk", key=stranger))
    refused.append(critical(public, issuer.token(team="risk")))
    good = issuer.token(team="risk")
    head, body, signature = good.split(".")
    none = encoded(b'{"alg":"none","kid":"one"}')
    other = encoded(
        json.dumps({"iss": issuer.url, "aud": AUDIENCE, "sub": "olga", "exp": now + 600}).encode()
    )
    # The public key, which everybody knows, as if it were a secret that is shared.
    shared = encoded(b'{"alg":"HS256","kid":"one"}') + f".{body}"
    mac = hmac.digest(public.as_pem(private=False), shared.encode(), "sha256")
    refused += [f"{shared}.{encoded(mac)}"]
    refused += [f"{none}.{body}.", f"{none}.{body}.{signature}", f"{head}.{body}."]
    refused += [f"{head}.{other}.{signature}", f"{good}.x.y", "a.b.c", "..."]
    for credential in refused:
        assert await verdict(admin, credential) == FORGED, credential
    for early in ({"exp": now - 50}, {"nbf": now + 50}, {"aud": ["x", AUDIENCE]}):
        caller = admin.as_caller(issuer.token(team="risk", **early))
        await caller.call(caller.projects.IntrospectCredential, WHO)


async def test_keys_are_rotated_and_unknown_ones_asked_for_once(
    admin: Desk, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.is_broken = True
    assert await verdict(admin, issuer.token(team="risk")) == AWAY
    issuer.is_broken = False
    first = admin.as_caller(issuer.token(team="risk"))
    await first.call(first.projects.IntrospectCredential, WHO)
    old = issuer.keys.pop()
    issuer.keys.append(ECKey.generate_key("P-256", {"kid": "two", "use": "sig"}))
    second = admin.as_caller(issuer.token(team="risk", header={"alg": "ES256"}))
    await second.call(second.projects.IntrospectCredential, WHO)
    assert issuer.fetches == 2
    # The set that named the new key no longer names the old one.
    assert await verdict(admin, issuer.token(team="risk", key=old)) == FORGED
    issuer.is_broken = True
    await second.call(second.projects.IntrospectCredential, WHO)


async def test_invented_key_ids_get_the_issuer_no_calls(
    settings: MetadataSettings, artifact_port: int, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_keys, "PAUSE_SECONDS", 30.0)
    async with (
        metadata_running(settings, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        desk = Desk(channel, house, "")
        for number in range(20):
            guess = issuer.token(team="risk", header={"kid": f"guess-{number}"})
            assert await verdict(desk, guess) == FORGED
        assert issuer.fetches == 1


@pytest.mark.parametrize(
    "line",
    [
        'issuer = "http://login.example.com"\naudience = "m"',
        'issuer = "https://login.example.com"\naudience = ""',
        'issuer = "https://login.example.com"\naudience = "m"\nalgorithms = ["HS256"]',
        'issuer = "https://login.example.com"\naudience = "m"\nalgorithms = ["none"]',
        'issuer = "https://login.example.com"\naudience = "m"\nprincipal = "service:{sub}"',
        'issuer = "https://login.example.com"\naudience = "m"\nprincipal = "everybody"',
        'issuer = "https://login.example.com"\naudience = "m"\nroot_certificates = "/absent"',
        'issuer = "https://login.example.com"\naudience = "m"\ntrust = true',
        'issuer = "https://a.b"\naudience = "m"\n[[issuer]]\nissuer = "https://a.b"\naudience="m"',
    ],
)
def test_what_must_not_be_trusted_is_refused_at_the_start(tmp_path: Path, line: str) -> None:
    file = tmp_path / "oidc.toml"
    file.write_text(f"[[issuer]]\n{line}\n")
    with pytest.raises(SettingsError):
        [oidc_keys.Keys(issuer) for issuer in read_issuers(str(file))]
    with pytest.raises(SettingsError):
        read_issuers(str(tmp_path / "absent.toml"))
