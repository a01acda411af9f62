"""The gRPC edge of signatures: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import signature_service_pb2 as pb
from modelyard.metadata.v1 import signature_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import VersionName
from services.metadata import limits
from services.metadata.signatures import codec
from services.metadata.signatures.signing import Signing

Context = grpc.aio.ServicerContext[Any, Any]


class SignatureServicer(signature_service_pb2_grpc.SignatureServiceServicer):
    """Serve `modelyard.metadata.v1.SignatureService`."""

    def __init__(self, *, signing: Signing) -> None:
        self._signing = signing

    async def AddSignature(
        self, request: pb.AddSignatureRequest, context: Context
    ) -> pb.AddSignatureResponse:
        """Add a signature."""
        signature = await self._signing.add(
            VersionName.parse(request.version, "version"),
            request.bundle,
            sha256=codec.sha256(request.bundle),
            key_hint=codec.key_hint(request.bundle),
            creator=current_call().caller.principal,
        )
        return pb.AddSignatureResponse(signature=codec.signature(signature))

    async def ListSignatures(
        self, request: pb.ListSignaturesRequest, context: Context
    ) -> pb.ListSignaturesResponse:
        """Return a version's signatures."""
        found = await self._signing.list(VersionName.parse(request.version, "version"))
        return pb.ListSignaturesResponse(signatures=[codec.signature(one) for one in found])

    async def GetSignature(
        self, request: pb.GetSignatureRequest, context: Context
    ) -> pb.GetSignatureResponse:
        """Return a signature with its bundle."""
        name = VersionName.parse(request.version, "version")
        found, bundle = await self._signing.get(name, limits.digest(request.sha256, "sha256"))
        return pb.GetSignatureResponse(signature=codec.signature(found), bundle=bundle)
