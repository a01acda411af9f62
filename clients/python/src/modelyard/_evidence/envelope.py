"""Signed statements: DSSE envelopes, made and verified by securesystemslib (`modelyard[signing]`).

Any key that cryptography reads from a PEM file will do: elliptic-curve, Ed25519 or RSA.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from modelyard.errors import FailedPreconditionError, InvalidArgumentError

STATEMENT_TYPE = "application/vnd.in-toto+json"
"""The media type of in-toto statements."""


def signer(key: str | Path) -> Any:
    """Return what signs with a private key in a PEM file.

    Raises:
        InvalidArgumentError: INVALID_KEY: it cannot be used.
    """
    library = _library("signer")
    serialization = _serialization()
    try:
        found = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
        return library.CryptoSigner(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(key, "private", error) from None


def sign(statement: bytes, with_signer: Any) -> bytes:
    """Return a statement in an envelope, in JSON."""
    envelope = _library("dsse").Envelope(statement, STATEMENT_TYPE, {})
    envelope.sign(with_signer)
    return json.dumps(envelope.to_dict(), indent=1).encode() + b"\n"


def verify(data: bytes, key: str | Path) -> bytes:
    """Return the statement of an envelope that was signed with a key.

    Args:
        data: The envelope, in JSON.
        key: The public key's PEM file.

    Raises:
        FailedPreconditionError: SIGNATURE_INVALID.
        InvalidArgumentError: INVALID_KEY: the key cannot be used.
    """
    library, exceptions = _library("signer"), _library("exceptions")
    serialization = _serialization()
    try:
        found = serialization.load_pem_public_key(Path(key).read_bytes())
        public = library.SSlibKey.from_crypto(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(key, "public", error) from None
    try:
        envelope = _library("dsse").Envelope.from_dict(json.loads(data))
        if envelope.payload_type != STATEMENT_TYPE:
            raise ValueError(f"it is of {envelope.payload_type}")
        for signature in envelope.signatures.values():
            # The id in a signature is a hint only: whether it holds the key alone says.
            own = library.Signature(public.keyid, signature.signature)
            with contextlib.suppress(exceptions.UnverifiedSignatureError):
                public.verify_signature(own, envelope.pae())
                return bytes(envelope.payload)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(f"it cannot be read: {error}") from None
    raise _invalid("it was not made with this key")


def _invalid(problem: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"the signature does not hold: {problem}", reason="SIGNATURE_INVALID"
    )


def _unusable(key: str | Path, kind: str, error: Exception) -> InvalidArgumentError:
    problem = error.strerror if isinstance(error, OSError) else str(error).partition("(")[0].strip()
    message = f"{key} is no {kind} key that can be used: {problem}"
    return InvalidArgumentError(message, reason="INVALID_KEY")


def _serialization() -> Any:
    _library("dsse")
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return serialization


def _library(module: str) -> Any:
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(f"securesystemslib.{module}")
    except ImportError as error:
        raise FailedPreconditionError(
            "signing needs `pip install modelyard[signing]`", reason="EXTRA_MISSING"
        ) from error
