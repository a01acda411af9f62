"""Envelopes: whoever else signed a statement, one's own key decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from modelyard._evidence import envelope as _envelope
from modelyard.errors import FailedPreconditionError


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a key pair; return the files of the private and the public one."""
    pair = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        pair.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def test_a_statement_that_others_signed_too_is_found_by_the_key_alone(tmp_path: Path) -> None:
    (first, first_public), (second, second_public) = keys(tmp_path, "a"), keys(tmp_path, "b")
    statement = b'{"_type": "https://in-toto.io/Statement/v1"}'
    envelope = json.loads(_envelope.sign(statement, _envelope.signer(first)))
    other = json.loads(_envelope.sign(statement, _envelope.signer(second)))
    envelope["signatures"] += other["signatures"]
    both = json.dumps(envelope).encode()
    assert _envelope.verify(both, first_public) == statement
    assert _envelope.verify(both, second_public) == statement
    with pytest.raises(FailedPreconditionError, match="not made with this key") as caught:
        _envelope.verify(both, keys(tmp_path, "c")[1])
    assert caught.value.reason == "SIGNATURE_INVALID"
