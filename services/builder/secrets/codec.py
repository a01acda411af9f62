"""Between the messages about secrets and their domain: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.builder.v1 import secret_pb2
from modelyard.builder.v1 import secret_service_pb2 as pb

from services.builder.codec import timestamp
from services.builder.secrets.domain import Secret, SecretChange
from services.common.listing import pagination
from services.common.names import ProjectName, SecretName, check_id


def new_name(request: pb.CreateSecretRequest) -> SecretName:
    """Read a new secret's name."""
    project = ProjectName.parse(request.parent, "parent").project
    return SecretName(project, check_id(request.secret_id, "secret_id"))


def change(request: pb.UpdateSecretRequest) -> SecretChange:
    """Read what to change."""
    return SecretChange(
        description=request.description if request.HasField("description") else None,
        value=request.value if request.HasField("value") else None,
    )


def list_query(request: pb.ListSecretsRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"secrets\n{request.parent}"


def page_start(request: pb.ListSecretsRequest) -> str:
    """Read after which id a page begins."""
    key = pagination.decode_token(request.page_token, list_query(request), tuple[str])
    return "" if key is None else key[0]


def page(
    request: pb.ListSecretsRequest, secrets: Sequence[Secret], size: int
) -> pb.ListSecretsResponse:
    """Write a page of secrets, given one more than it holds when there are more."""
    response = pb.ListSecretsResponse(secrets=[secret(s) for s in secrets[:size]])
    if len(secrets) > size:
        key = (secrets[size - 1].name.secret,)
        response.next_page_token = pagination.encode_token(list_query(request), key)
    return response


def secret(found: Secret) -> secret_pb2.Secret:
    """Write a secret."""
    return secret_pb2.Secret(
        name=str(found.name),
        description=found.description,
        updater=found.updater,
        create_time=timestamp(found.create_time),
        update_time=timestamp(found.update_time),
        etag=found.etag,
    )
