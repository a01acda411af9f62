"""Whether a version's signatures hold, by OpenSSF model signing over digests we know."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from modelyard._evidence import signing as _signing
from modelyard.artifact.v1 import artifact_pb2
from modelyard.errors import ModelyardError


def problem(
    files: Sequence[artifact_pb2.File], bundles: Sequence[bytes], public_keys: Sequence[str]
) -> str:
    """Say why none of the keys made a signature of exactly these files; empty: one did."""
    if not bundles:
        return "its files are not signed"
    last = ""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key.pem"
        for text in public_keys:
            key.write_text(text)
            for bundle in bundles:
                try:
                    _signing.verify(files, bundle, key)
                except ModelyardError as error:
                    last = str(error)
                else:
                    return ""
    return f"no signature of its files is by a key that is trusted: {last}"


def is_public_key(text: str) -> bool:
    """Say whether a text is an elliptic-curve public key in PEM."""
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, EllipticCurvePublicKey)
