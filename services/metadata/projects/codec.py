"""Between messages and domain: projects, tokens, credentials."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import project_pb2, project_service_pb2, token_pb2

from services.common.auth import CACHE_SECONDS, Right
from services.common.errors import invalid_field
from services.common.names import ProjectName, TokenName, check_id
from services.metadata import limits
from services.metadata.projects.domain import (
    INSTALLATION_RIGHTS,
    Credential,
    Grant,
    Project,
    ProjectDraft,
    Role,
    Token,
    TokenDraft,
)
from services.metadata.wire import moment, stamp

GRANTS = 1_000
PROTECTED_ALIASES = 64
PROJECT_PATHS = ("display_name", "description", "protected_aliases")


def project_draft(message: project_pb2.Project) -> ProjectDraft:
    """Return what the caller says of a project."""
    if len(message.protected_aliases) > PROTECTED_ALIASES:
        problem = f"must not be more than {PROTECTED_ALIASES}"
        raise invalid_field("project.protected_aliases", problem)
    aliases = {check_id(alias, "project.protected_aliases") for alias in message.protected_aliases}
    return ProjectDraft(
        limits.line(message.display_name, "project.display_name", limits.DISPLAY_NAME),
        limits.lines(message.description, "project.description", limits.DESCRIPTION),
        tuple(sorted(aliases)),
    )


def update_paths(request: project_service_pb2.UpdateProjectRequest) -> tuple[str, ...]:
    """Return which fields of a project to change: the mask's, or all that are set."""
    paths = request.update_mask.paths
    if not set(paths) <= set(PROJECT_PATHS):
        raise invalid_field("update_mask", f"must name some of {', '.join(PROJECT_PATHS)}")
    if paths:
        return tuple(paths)
    return tuple(path for path in PROJECT_PATHS if getattr(request.project, path))


def project(found: Project) -> project_pb2.Project:
    """Return a project's message."""
    message = project_pb2.Project(
        name=str(ProjectName(found.project)),
        display_name=found.display_name,
        description=found.description,
        protected_aliases=found.protected_aliases,
        etag=str(found.revision),
    )
    stamp(message.create_time, found.create_time)
    stamp(message.update_time, found.update_time)
    stamp(message.delete_time, found.delete_time)
    return message


def token_draft(message: token_pb2.Token) -> TokenDraft:
    """Return what a token is to be."""
    if len(message.grants) > GRANTS:
        raise invalid_field("token.grants", f"must not be more than {GRANTS}")
    rights = rights_from(message.installation_rights, "token.installation_rights")
    if not set(rights) <= INSTALLATION_RIGHTS:
        raise invalid_field("token.installation_rights", "must be rights on the installation")
    expires = message.HasField("expire_time")
    return TokenDraft(
        principal=limits.line(
            message.principal, "token.principal", limits.PRINCIPAL, required=True
        ),
        grants=tuple(_grant(grant) for grant in message.grants),
        installation_rights=rights,
        expire_time=moment(message.expire_time, "token.expire_time") if expires else None,
    )


def token(found: Token) -> token_pb2.Token:
    """Return a token's message, without its secret."""
    message = token_pb2.Token(
        name=str(TokenName(found.token)),
        principal=found.principal,
        grants=[
            token_pb2.Grant(
                project=f"projects/{grant.project}",
                role=project_pb2.Role.Value(f"ROLE_{grant.role}"),
            )
            for grant in found.grants
        ],
        installation_rights=_rights(found.installation_rights),
    )
    stamp(message.create_time, found.create_time)
    stamp(message.expire_time, found.expire_time)
    stamp(message.revoke_time, found.revoke_time)
    stamp(message.last_use_time, found.last_use_time)
    return message


def credential(found: Credential) -> project_service_pb2.IntrospectCredentialResponse:
    """Return whom a credential stands for, as a message."""
    identity = found.identity
    message = project_service_pb2.IntrospectCredentialResponse(
        principal=identity.principal,
        project_rights=[
            project_service_pb2.ProjectRights(project=f"projects/{name}", rights=_rights(rights))
            for name, rights in sorted(identity.project_rights.items())
        ],
        installation_rights=_rights(identity.installation_rights),
        delegated_resource=identity.delegated_resource,
        cache_duration=Duration(seconds=int(CACHE_SECONDS)),
    )
    stamp(message.expire_time, found.expire_time)
    return message


def rights_from(values: Iterable[int], field: str) -> tuple[Right, ...]:
    """Return rights, each once, or refuse a number that is none."""
    known = access_pb2.Right.values()
    found: dict[Right, None] = {}
    for value in values:
        if value not in known or value == access_pb2.RIGHT_UNSPECIFIED:
            raise invalid_field(field, "must hold known rights only")
        name = access_pb2.Right.Name(value)  # type: ignore[arg-type]  # known
        found[Right(name.removeprefix("RIGHT_"))] = None
    return tuple(found)


def role_from(value: project_pb2.Role.ValueType, field: str) -> Role:
    """Return a role, or refuse a number that is none."""
    if value not in project_pb2.Role.values() or value == project_pb2.ROLE_UNSPECIFIED:
        raise invalid_field(field, "must be a known role")
    return Role(project_pb2.Role.Name(value).removeprefix("ROLE_"))


def _rights(rights: Iterable[Right]) -> list[access_pb2.Right.ValueType]:
    return [access_pb2.Right.Value(f"RIGHT_{right}") for right in sorted(rights)]


def _grant(message: token_pb2.Grant) -> Grant:
    name = ProjectName.parse(message.project, "token.grants.project", wildcard=True)
    return Grant(name.project, role_from(message.role, "token.grants.role"))
