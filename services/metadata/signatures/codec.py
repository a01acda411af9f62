"""Between messages and domain: signatures; of a bundle only what it calls its key is read."""

from __future__ import annotations

import hashlib
import re

import msgspec
from modelyard.metadata.v1 import signature_service_pb2 as pb

from services.common.errors import invalid_field
from services.metadata.signatures.domain import Signature
from services.metadata.wire import stamp

BUNDLE_BYTES = 3 * 1024 * 1024
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _PublicKey(msgspec.Struct):
    hint: str = ""


class _Material(msgspec.Struct, rename="camel"):
    public_key: _PublicKey = msgspec.field(default_factory=_PublicKey)


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    verification_material: _Material


def sha256(bundle: bytes) -> str:
    """Return what a signature is called."""
    return hashlib.sha256(bundle).hexdigest()


def key_hint(bundle: bytes) -> str:
    """Return what a bundle says of its key, or refuse what is no bundle."""
    if len(bundle) > BUNDLE_BYTES:
        raise invalid_field("bundle", f"must have at most {BUNDLE_BYTES} bytes")
    try:
        found = msgspec.json.decode(bundle, type=_Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid_field("bundle", "must be a Sigstore bundle in JSON") from None
    if not found.media_type.startswith(_MEDIA_TYPE):
        raise invalid_field("bundle", f"must be of the media type {_MEDIA_TYPE}…")
    hint = found.verification_material.public_key.hint
    return hint if _DIGEST.fullmatch(hint) else ""


def signature(found: Signature) -> pb.Signature:
    """Write a signature."""
    message = pb.Signature(sha256=found.sha256, key_hint=found.key_hint, creator=found.creator)
    stamp(message.create_time, found.create_time)
    return message
