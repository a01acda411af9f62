"""The gRPC edge of secrets: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.builder.v1 import secret_service_pb2 as pb
from modelyard.builder.v1 import secret_service_pb2_grpc

from services.builder.secrets import codec
from services.builder.secrets.domain import SecretChange
from services.builder.secrets.keeping import Vault
from services.common.auth import current_call
from services.common.listing import pagination
from services.common.names import ProjectName, SecretName

Context = grpc.aio.ServicerContext[Any, Any]


class SecretServicer(secret_service_pb2_grpc.SecretServiceServicer):
    """Serve `modelyard.builder.v1.SecretService`."""

    def __init__(self, *, vault: Vault) -> None:
        self._vault = vault

    async def CreateSecret(
        self, request: pb.CreateSecretRequest, context: Context
    ) -> pb.CreateSecretResponse:
        """Keep a new secret."""
        call, change = current_call(), SecretChange(request.description, request.value)
        secret = await self._vault.create(
            codec.new_name(request), change, creator=call.caller.principal, key=call.key(request)
        )
        return pb.CreateSecretResponse(secret=codec.secret(secret))

    async def GetSecret(
        self, request: pb.GetSecretRequest, context: Context
    ) -> pb.GetSecretResponse:
        """Return a secret without its value."""
        secret = await self._vault.get(SecretName.parse(request.name))
        return pb.GetSecretResponse(secret=codec.secret(secret))

    async def ListSecrets(
        self, request: pb.ListSecretsRequest, context: Context
    ) -> pb.ListSecretsResponse:
        """Return a page of secrets without their values."""
        project = ProjectName.parse(request.parent, "parent").project
        size, after = pagination.page_size(request.page_size), codec.page_start(request)
        return codec.page(
            request, await self._vault.list(project, after=after, limit=size + 1), size
        )

    async def UpdateSecret(
        self, request: pb.UpdateSecretRequest, context: Context
    ) -> pb.UpdateSecretResponse:
        """Set a secret's value or description."""
        call, name = current_call(), SecretName.parse(request.name)
        secret = await self._vault.update(
            name,
            codec.change(request),
            etag=request.etag,
            updater=call.caller.principal,
            key=call.key(request),
        )
        return pb.UpdateSecretResponse(secret=codec.secret(secret))

    async def DeleteSecret(
        self, request: pb.DeleteSecretRequest, context: Context
    ) -> pb.DeleteSecretResponse:
        """Delete a secret."""
        call, name = current_call(), SecretName.parse(request.name)
        actor = call.caller.principal
        await self._vault.delete(name, etag=request.etag, actor=actor, key=call.key(request))
        return pb.DeleteSecretResponse()
