"""Signatures: made here or by the stock tool, they hold for exactly the files that were signed."""

from __future__ import annotations

import fractions
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelyard
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing, verifying
from modelyard.cli.gates import parse_gate
from modelyard.errors import (
    FailedPreconditionError,
    GateRefusedError,
    InvalidArgumentError,
    NotFoundError,
)

from tests.e2e.suite import Suite


@dataclass(frozen=True, slots=True)
class Keys:
    """A pair of keys in PEM files."""

    private: Path
    public: Path


def make_keys(folder: Path) -> Keys:
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "key.pem", folder / "pub.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, spki))
    return Keys(private, public)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "a.bin").write_bytes(b"a" * 100_000)
    (folder / "ünï.json").write_text("{}")
    return folder


def register(client: modelyard.Client, folder: Path) -> str:
    artifact = client.artifacts.push(folder)
    return client.versions.create("signed", artifact.name).name


def reason(caught: pytest.ExceptionInfo[FailedPreconditionError]) -> str:
    return caught.value.reason


def test_what_we_sign_the_stock_tool_verifies(
    suite: Suite, keys: Keys, folder: Path, tmp_path: Path
) -> None:
    with suite.client() as client:
        version = register(client, folder)
        with pytest.raises(FailedPreconditionError) as caught:
            client.signatures.verify(version, keys.public)
        assert reason(caught) == "SIGNATURE_MISSING"
        made = client.signatures.sign(version, keys.private)
        assert client.signatures.verify(version, keys.public) == made
        assert list(client.signatures.list(version)) == [made]

        pulled = client.artifacts.pull(version, tmp_path / "out", verify_key=keys.public)
        bundle = tmp_path / "model.sig"
        bundle.write_bytes(client.signatures.bundle(version, made.sha256))
        stock: Any = verifying.Config()  # type: ignore[no-untyped-call]
        stock.use_elliptic_key_verifier(public_key=keys.public)
        stock.verify(pulled, bundle)
        (pulled / "weights" / "a.bin").write_bytes(b"b" * 100_000)
        with pytest.raises(ValueError, match="mismatch"):
            stock.verify(pulled, bundle)


def test_a_model_is_signed_as_it_is_logged(
    suite: Suite, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "logged"
    model.mkdir()
    (model / "model.pkl").write_bytes(pickle.dumps(fractions.Fraction(1, 2)))
    with suite.client() as client:
        monkeypatch.setenv("MODELYARD_SERVER", suite.address)
        monkeypatch.setenv("MODELYARD_TOKEN", suite.token)
        given: dict[str, Any] = {"model": "signed-at-once", "requirements": [], "aliases": ["now"]}
        with pytest.raises(InvalidArgumentError):
            modelyard.log_model(model, **given, sign_key=keys.public)
        with pytest.raises(NotFoundError):
            client.versions.get("signed-at-once")
        version = modelyard.log_model(model, **given, sign_key=keys.private)
        client.signatures.verify(version, keys.public)
        assert client.artifacts.pull("signed-at-once@now", tmp_path / "out", verify_key=keys.public)


def test_what_the_stock_tool_signs_we_verify(
    suite: Suite, keys: Keys, folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "model.sig"
    config: Any = signing.Config()  # type: ignore[no-untyped-call]
    config.use_elliptic_key_signer(private_key=keys.private)
    config.sign(folder, bundle)
    with suite.client() as client:
        version = register(client, folder)
        made = client.signatures.add(version, bundle.read_bytes())
        assert client.signatures.add(version, bundle.read_bytes()) == made
        assert client.signatures.verify(version, keys.public).sha256 == made.sha256


def test_a_signature_that_does_not_hold(
    suite: Suite, keys: Keys, folder: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    with suite.client() as client:
        version = register(client, folder)
        client.signatures.sign(version, keys.private)
        for wrong in (other.public, keys.private):
            with pytest.raises(FailedPreconditionError) as caught:
                client.signatures.verify(version, wrong)
            assert reason(caught) == "SIGNATURE_INVALID"
        with pytest.raises(FailedPreconditionError):
            client.artifacts.pull(version, tmp_path / "out", verify_key=other.public)
        assert not (tmp_path / "out").exists()

        (folder / "extra.txt").write_text("more")
        larger = register(client, folder)
        signature = client.signatures.list(version)[0]
        stolen = client.signatures.bundle(version, signature.sha256)
        client.signatures.add(larger, stolen)
        with pytest.raises(FailedPreconditionError) as caught:
            client.signatures.verify(larger, keys.public)
        assert reason(caught) == "SIGNATURE_INVALID"

        forged = json.loads(stolen)
        forged["dsseEnvelope"]["payload"] = forged["dsseEnvelope"]["payload"][::-1]
        client.signatures.add(larger, json.dumps(forged).encode())
        with pytest.raises(FailedPreconditionError):
            client.signatures.verify(larger, keys.public)

        for junk in (b"", b"{}", b"\xff", b'{"mediaType": "x", "verificationMaterial": {}}'):
            with pytest.raises(InvalidArgumentError):
                client.signatures.add(version, junk)
        with pytest.raises(NotFoundError):
            client.signatures.bundle(version, "0" * 64)
        with pytest.raises(InvalidArgumentError):
            client.signatures.sign(version, keys.public)


def test_nothing_unsigned_or_unsafe_goes_live(
    suite: Suite, keys: Keys, folder: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    wanted = [f"signed:{keys.public}", "format:unverified", "approvals:1"]
    with suite.client() as client:
        gates = [parse_gate(text, project=client.project) for text in wanted]
        client.environments.create("guarded", gates=gates)

        def refusals(version: str) -> dict[str, str]:
            verdicts = client.deployments.check(version, environment="guarded")
            return {v.gate_id: v.explanation for v in verdicts if not v.passed}

        version = register(client, folder)
        assert refusals(version)["signed"] == "its files are not signed"
        client.signatures.sign(version, other.private)
        assert "by a key that is trusted" in refusals(version)["signed"]
        with pytest.raises(GateRefusedError):
            client.deployments.deploy(version, environment="guarded")
        client.signatures.sign(version, keys.private)
        assert refusals(version).keys() == {"approved"}
        client.environments.approve("guarded", version, reason="mine")  # its author's own
        assert refusals(version)["approved"].startswith("0 of 1 approvals by others")
        assert [a.reason for a in client.environments.approvals("guarded", version)] == ["mine"]
        client.environments.withdraw("guarded", version)
        assert not client.environments.approvals("guarded", version)

        (folder / "model.pkl").write_bytes(pickle.dumps(fractions.Fraction(1, 2)))
        unsafe = register(client, folder)
        client.signatures.sign(unsafe, keys.private)
        assert "model.pkl" in refusals(unsafe)["format-allowed"]
