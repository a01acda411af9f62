"""Signing versions with OpenSSF model signing (`modelyard[signing]`), over digests we know.

A signature names every file of the version with its SHA-256; those are what the artifact's digest
names too, so no byte has to be fetched or hashed again, and a stock `model_signing verify key` over
a pulled folder comes to the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modelyard.artifact.v1 import artifact_pb2
from modelyard.errors import FailedPreconditionError, InvalidArgumentError

PrivateKey = str | Path
PublicKey = str | Path


class _Known:
    """Stands in for the library's hashing: the files' digests are known."""

    def __init__(self, files: Sequence[artifact_pb2.File]) -> None:
        self._files = files
        self._ignored: tuple[str, ...] = ()

    def add_ignored_paths(self, *, model_path: object, paths: Iterable[object]) -> None:
        """Leave out what a signature says it left out, such as itself and `.git`."""
        self._ignored = tuple(str(path).rstrip("/") for path in paths)

    def hash(self, model_path: object, *, files_to_hash: object = None) -> object:
        """Return the manifest of the files."""
        manifest: Any = _library("manifest")

        items = [
            manifest.FileManifestItem(
                path=Path(file.path),
                digest=manifest.hashing.Digest("sha256", bytes.fromhex(file.sha256)),
            )
            for file in self._files
            if not self._is_ignored(file.path)
        ]
        how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        serialization = manifest.SerializationType.from_args(how)
        return manifest.Manifest(Path(str(model_path)).name, items, serialization)

    def _is_ignored(self, path: str) -> bool:
        return any(path == ignored or path.startswith(f"{ignored}/") for ignored in self._ignored)


def sign(name: str, files: Sequence[artifact_pb2.File], key: PrivateKey) -> bytes:
    """Return the Sigstore bundle of a signature with an elliptic-curve key in a PEM file.

    Raises:
        InvalidArgumentError: The key cannot be used.
    """
    signing: Any = _library("signing")
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder) / "model.sig"
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=key)
            config.set_hashing_config(_Known(files)).sign(Path(folder) / name, signature)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidArgumentError(
                f"{key} is no elliptic-curve private key that can be used: {error}",
                reason="INVALID_KEY",
            ) from error
        return signature.read_bytes()


def verify(files: Sequence[artifact_pb2.File], bundle: bytes, key: PublicKey) -> None:
    """Refuse a signature that is not of exactly these files, or not by this key.

    Raises:
        FailedPreconditionError: SIGNATURE_INVALID.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    verifying: Any = _library("verifying")
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder) / "model.sig"
        signature.write_bytes(bundle)
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
            config.set_hashing_config(_Known(files)).verify(Path(folder), signature)
        except (ValueError, TypeError, KeyError, InvalidSignature) as error:
            message = str(error) or "it was not made with this key"
            raise FailedPreconditionError(
                f"the signature does not hold: {message[:500]}", reason="SIGNATURE_INVALID"
            ) from error


def missing(version: str) -> FailedPreconditionError:
    """Say that a version has no signature."""
    return FailedPreconditionError(f"{version} is not signed", reason="SIGNATURE_MISSING")


def _library(module: str) -> Any:
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise FailedPreconditionError(
            "signing needs `pip install modelyard[signing]`", reason="EXTRA_MISSING"
        ) from error
