"""`client.signatures`: who vouches for a version's files."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard._evidence import signing as _signing
from modelyard._evidence.signing import PrivateKey, PublicKey
from modelyard._names import Ref
from modelyard._resources.resolving import resolve_version
from modelyard._transfers import pull as _pull
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow
from modelyard._transport.calls import Flow, ask, call
from modelyard.errors import FailedPreconditionError
from modelyard.metadata.v1 import signature_service_pb2 as service
from modelyard.metadata.v1 import version_pb2


class _Signatures(Group):
    @flow
    def sign(self, version: Ref, key: PrivateKey) -> Flow[service.Signature]:
        """Sign a version's files with an elliptic-curve key in a PEM file, and keep the signature.

        It is one of OpenSSF model signing: over a pulled folder, `model_signing verify key` with
        the public key says the same. Needs `modelyard[signing]`; nothing is downloaded.
        """
        found = yield from ask(resolve_version(self._names, version))
        files = yield from _pull.list_files(found.artifact)
        bundle = _signing.sign(_folder_name(found), files, key)
        request = service.AddSignatureRequest(version=found.name, bundle=bundle)
        wanted = call(request, service.AddSignatureResponse, lambda r: r.signature)
        return (yield from ask(wanted))

    @flow
    def add(self, version: Ref, bundle: bytes) -> Flow[service.Signature]:
        """Keep a signature that was made elsewhere, such as by `model_signing sign key`."""
        found = yield from ask(resolve_version(self._names, version))
        request = service.AddSignatureRequest(version=found.name, bundle=bundle)
        wanted = call(request, service.AddSignatureResponse, lambda r: r.signature)
        return (yield from ask(wanted))

    @flow
    def list(self, version: Ref) -> Flow[Sequence[service.Signature]]:
        """List a version's signatures, oldest first; whether they hold, `verify` says."""
        found = yield from ask(resolve_version(self._names, version))
        return (yield from _listed(found.name))

    @flow
    def bundle(self, version: Ref, sha256: str) -> Flow[bytes]:
        """Return a signature's Sigstore bundle, as `model_signing verify` takes it."""
        found = yield from ask(resolve_version(self._names, version))
        return (yield from _bundle(found.name, sha256))

    @flow
    def verify(self, version: Ref, key: PublicKey) -> Flow[service.Signature]:
        """Return a signature of a version that holds with a public key in a PEM file.

        `FailedPreconditionError`: SIGNATURE_MISSING when it has none, SIGNATURE_INVALID when none
        holds.
        """
        found = yield from ask(resolve_version(self._names, version))
        return (yield from verify_version(found, key))


class Signatures(_Signatures, SyncGroup):
    """Who vouches for a version's files."""


class AsyncSignatures(_Signatures, AsyncGroup):
    """Who vouches for a version's files."""


def verify_version(found: version_pb2.Version, key: PublicKey) -> Flow[service.Signature]:
    """Find a signature that holds, or say why none does."""
    files = yield from _pull.list_files(found.artifact)
    problem = _signing.missing(found.name)
    for signature in reversed((yield from _listed(found.name))):
        bundle = yield from _bundle(found.name, signature.sha256)
        try:
            _signing.verify(files, bundle, key)
        except FailedPreconditionError as error:
            problem = error
        else:
            return signature
    raise problem


def _listed(version: str) -> Flow[Sequence[service.Signature]]:
    request = service.ListSignaturesRequest(version=version)
    wanted = call(request, service.ListSignaturesResponse, lambda r: r.signatures)
    return (yield from ask(wanted))


def _bundle(version: str, sha256: str) -> Flow[bytes]:
    request = service.GetSignatureRequest(version=version, sha256=sha256)
    return (yield from ask(call(request, service.GetSignatureResponse, lambda r: r.bundle)))


def _folder_name(version: version_pb2.Version) -> str:
    _, _, _, model, _, number = version.name.split("/")
    return f"{model}-{number}"
