"""`client.tokens`: credentials of users and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard._values import encode_time
from modelyard.common.v1 import access_pb2
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import project_pb2, token_pb2
from modelyard.metadata.v1 import project_service_pb2 as service


class _Tokens(Group):
    @unary
    def create(
        self,
        principal: str,
        *,
        roles: Mapping[str, str] | None = None,
        installation_rights: Sequence[str] = (),
        expire_time: datetime | None = None,
    ) -> Call[service.CreateTokenResponse]:
        """Create a token; the answer alone shows its `secret`.

        `roles` gives a role (`viewer`, `contributor`, `builder`, `deployer`, `admin`) for each
        project, `-` being all of them; without any, the token is good for whatever its
        principal may do as a member. `installation_rights` are names such as `operate`.
        """
        token = token_pb2.Token(
            principal=principal,
            grants=[
                token_pb2.Grant(
                    project="projects/-" if project == "-" else self._names.project(project),
                    role=role_number(role),
                )
                for project, role in (roles or {}).items()
            ],
            installation_rights=[
                access_pb2.Right.Value(_enum_name(access_pb2.Right, "RIGHT", right))
                for right in installation_rights
            ],
            expire_time=encode_time(expire_time),
        )
        request = service.CreateTokenRequest(token=token, request_id=new_request_id())
        return call(request, service.CreateTokenResponse, lambda r: r)

    @paged
    def list(self) -> Pages[token_pb2.Token]:
        """List tokens, newest first, without their secrets."""
        return pages(service.ListTokensRequest(), service.ListTokensResponse, lambda r: r.tokens)

    @unary
    def revoke(self, token: Ref) -> Call[token_pb2.Token]:
        """Revoke a token; it stops working within 5 seconds everywhere."""
        request = service.RevokeTokenRequest(name=self._names.token(token))
        return call(request, service.RevokeTokenResponse, lambda r: r.token)

    @unary
    def introspect(self) -> Call[service.IntrospectCredentialResponse]:
        """Say whom the client's own credential stands for and what it may do."""
        request = service.IntrospectCredentialRequest()
        return call(request, service.IntrospectCredentialResponse, lambda r: r)


class Tokens(_Tokens, SyncGroup):
    """Credentials of users and machines."""


class AsyncTokens(_Tokens, AsyncGroup):
    """Credentials of users and machines."""


def role_number(role: str) -> project_pb2.Role.ValueType:
    """Return a role by its name, such as `builder`."""
    return project_pb2.Role.Value(_enum_name(project_pb2.Role, "ROLE", role))


def _enum_name(enum: object, prefix: str, text: str) -> str:
    name = f"{prefix}_{text.upper()}"
    known = [str(key) for key in enum.keys()]  # type: ignore[attr-defined]  # noqa: SIM118
    if name not in known:
        choices = ", ".join(key.removeprefix(f"{prefix}_").lower() for key in known[1:])
        raise InvalidArgumentError(f"{text!r} is none of: {choices}", reason="INVALID_FIELD")
    return name
