"""`client.secrets`: values that builds use and nobody reads back."""

from __future__ import annotations

from modelyard._names import Names, Ref, id_of, project_of
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, ask, call, new_request_id, pages
from modelyard.builder.v1 import secret_pb2
from modelyard.builder.v1 import secret_service_pb2 as service
from modelyard.errors import NotFoundError


class _Secrets(Group):
    @flow
    def set(
        self, secret: Ref, value: str, *, description: str | None = None
    ) -> Flow[secret_pb2.Secret]:
        """Create a secret, or give it a new value; attempts that begin later use it."""
        try:
            return (yield from ask(_update(self._names, secret, value, description)))
        except NotFoundError:
            return (yield from ask(_create(self._names, secret, value, description or "")))

    @unary
    def create(self, secret: Ref, value: str, *, description: str = "") -> Call[secret_pb2.Secret]:
        """Create a secret; AlreadyExistsError when there is one."""
        return _create(self._names, secret, value, description)

    @unary
    def update(
        self,
        secret: Ref,
        *,
        value: str | None = None,
        description: str | None = None,
        etag: str = "",
    ) -> Call[secret_pb2.Secret]:
        """Change a secret; with an `etag`, only if nobody else did."""
        return _update(self._names, secret, value, description, etag=etag)

    @unary
    def get(self, secret: Ref) -> Call[secret_pb2.Secret]:
        """Get a secret, without its value."""
        request = service.GetSecretRequest(name=self._names.secret(secret))
        return call(request, service.GetSecretResponse, lambda r: r.secret)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[secret_pb2.Secret]:
        """List a project's secrets by name, without their values."""
        request = service.ListSecretsRequest(parent=self._names.project(project))
        return pages(request, service.ListSecretsResponse, lambda r: r.secrets)

    @unary
    def delete(self, secret: Ref, *, etag: str = "") -> Call[None]:
        """Delete a secret; builds that name it fail from now on."""
        request = service.DeleteSecretRequest(
            name=self._names.secret(secret), etag=etag, request_id=new_request_id()
        )
        return call(request, service.DeleteSecretResponse, lambda _: None)


class Secrets(_Secrets, SyncGroup):
    """Values that builds use and nobody reads back."""


class AsyncSecrets(_Secrets, AsyncGroup):
    """Values that builds use and nobody reads back."""


def _create(names: Names, secret: Ref, value: str, description: str) -> Call[secret_pb2.Secret]:
    name = names.secret(secret)
    request = service.CreateSecretRequest(
        parent=project_of(name),
        secret_id=id_of(name),
        description=description,
        value=value,
        request_id=new_request_id(),
    )
    return call(request, service.CreateSecretResponse, lambda r: r.secret)


def _update(
    names: Names, secret: Ref, value: str | None, description: str | None, *, etag: str = ""
) -> Call[secret_pb2.Secret]:
    request = service.UpdateSecretRequest(
        name=names.secret(secret),
        value=value,
        description=description,
        etag=etag,
        request_id=new_request_id(),
    )
    return call(request, service.UpdateSecretResponse, lambda r: r.secret)
