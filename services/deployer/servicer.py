"""DeploymentService's edge: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from modelyard.deployer.v1 import deployment_service_pb2 as pb
from modelyard.deployer.v1 import deployment_service_pb2_grpc

from services.common.auth import current_call
from services.common.errors import invalid_field
from services.common.listing.pagination import (
    decode_cursor,
    decode_token,
    encode_cursor,
    encode_token,
    page_size,
)
from services.common.names import DeploymentName, EnvironmentName
from services.common.rpc.draining import endless
from services.deployer import codec
from services.deployer.domain import RevisionCause
from services.deployer.environments import gate_codec
from services.deployer.reading import News, Reading
from services.deployer.rollouts import plan_codec
from services.deployer.rollouts.rollout import Beside, Order, Rollout
from services.deployer.timestamps import timestamp


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Serves DeploymentService."""

    def __init__(self, rollout: Rollout, reading: Reading) -> None:
        self._rollout = rollout
        self._reading = reading

    async def DeployVersion(  # noqa: D102 - documented in the proto, as each RPC
        self, request: pb.DeployVersionRequest, context: Any
    ) -> pb.DeployVersionResponse:
        parent = EnvironmentName.parse(request.parent, "parent")
        version = codec.check_version(request.version)
        wished = await self._rollout.deploy(
            parent,
            version,
            _order(request),
            plan=plan_codec.decode_plan(request.plan),
            serving=plan_codec.decode_serving(request.serving),
        )
        deployment = codec.encode_deployment(wished.deployment)
        return pb.DeployVersionResponse(deployment=deployment, revision=wished.revision)

    async def CheckVersion(  # noqa: D102
        self, request: pb.CheckVersionRequest, context: Any
    ) -> pb.CheckVersionResponse:
        parent = EnvironmentName.parse(request.parent, "parent")
        credential = current_call().caller.credential
        version = codec.check_version(request.version)
        further = gate_codec.decode_gates(request.gates, "gates")
        verdicts = await self._rollout.check(parent, version, further, credential=credential)
        return pb.CheckVersionResponse(verdicts=[codec.encode_verdict(v) for v in verdicts])

    async def RollbackDeployment(  # noqa: D102
        self, request: pb.RollbackDeploymentRequest, context: Any
    ) -> pb.RollbackDeploymentResponse:
        name = DeploymentName.parse(request.name)
        if request.revision < 0:
            raise invalid_field("revision", "must not be negative")
        wished = await self._rollout.roll_back(name, request.revision, _order(request))
        deployment = codec.encode_deployment(wished.deployment)
        return pb.RollbackDeploymentResponse(deployment=deployment, revision=wished.revision)

    async def ContinueRollout(  # noqa: D102
        self, request: pb.ContinueRolloutRequest, context: Any
    ) -> pb.ContinueRolloutResponse:
        changed = await self._rollout.go_on(DeploymentName.parse(request.name), _order(request))
        return pb.ContinueRolloutResponse(deployment=codec.encode_deployment(changed.deployment))

    async def AbortRollout(  # noqa: D102
        self, request: pb.AbortRolloutRequest, context: Any
    ) -> pb.AbortRolloutResponse:
        changed = await self._rollout.abort(DeploymentName.parse(request.name), _order(request))
        return pb.AbortRolloutResponse(deployment=codec.encode_deployment(changed.deployment))

    async def ShadowVersion(  # noqa: D102
        self, request: pb.ShadowVersionRequest, context: Any
    ) -> pb.ShadowVersionResponse:
        how = Beside(
            RevisionCause.SHADOW,
            plan_codec.decode_serving(request.serving),
            mirror_percent=plan_codec.decode_mirror_percent(request.mirror_percent),
        )
        parent = EnvironmentName.parse(request.parent, "parent")
        version = codec.check_version(request.version)
        wished = await self._rollout.set_beside(parent, version, _order(request), how=how)
        deployment = codec.encode_deployment(wished.deployment)
        return pb.ShadowVersionResponse(deployment=deployment, revision=wished.revision)

    async def StopShadow(  # noqa: D102
        self, request: pb.StopShadowRequest, context: Any
    ) -> pb.StopShadowResponse:
        name = DeploymentName.parse(request.name)
        changed = await self._rollout.end_beside(name, _order(request), RevisionCause.SHADOW)
        return pb.StopShadowResponse(deployment=codec.encode_deployment(changed.deployment))

    async def PreviewVersion(  # noqa: D102
        self, request: pb.PreviewVersionRequest, context: Any
    ) -> pb.PreviewVersionResponse:
        how = Beside(
            RevisionCause.PREVIEW,
            plan_codec.decode_serving(request.serving),
            header_match=plan_codec.decode_header_match(request.header_match),
        )
        parent = EnvironmentName.parse(request.parent, "parent")
        version = codec.check_version(request.version)
        wished = await self._rollout.set_beside(parent, version, _order(request), how=how)
        deployment = codec.encode_deployment(wished.deployment)
        return pb.PreviewVersionResponse(deployment=deployment, revision=wished.revision)

    async def StopPreview(  # noqa: D102
        self, request: pb.StopPreviewRequest, context: Any
    ) -> pb.StopPreviewResponse:
        name = DeploymentName.parse(request.name)
        changed = await self._rollout.end_beside(name, _order(request), RevisionCause.PREVIEW)
        return pb.StopPreviewResponse(deployment=codec.encode_deployment(changed.deployment))

    async def StopDeployment(  # noqa: D102
        self, request: pb.StopDeploymentRequest, context: Any
    ) -> pb.StopDeploymentResponse:
        wished = await self._rollout.stop(DeploymentName.parse(request.name), _order(request))
        return pb.StopDeploymentResponse(deployment=codec.encode_deployment(wished.deployment))

    async def GetDeployment(  # noqa: D102
        self, request: pb.GetDeploymentRequest, context: Any
    ) -> pb.GetDeploymentResponse:
        found = await self._reading.get(DeploymentName.parse(request.name))
        return pb.GetDeploymentResponse(deployment=codec.encode_deployment(found))

    async def ListDeployments(  # noqa: D102
        self, request: pb.ListDeploymentsRequest, context: Any
    ) -> pb.ListDeploymentsResponse:
        parent, limit = _open_parent(request.parent), page_size(request.page_size)
        query = f"deployments {parent}"
        (after,) = decode_token(request.page_token, query, tuple[str]) or ("",)
        found = await self._reading.list_page(parent, after=after, limit=limit + 1)
        page = found[:limit]
        more = encode_token(query, (str(page[-1].name),)) if len(found) > limit else ""
        deployments = [codec.encode_deployment(deployment) for deployment in page]
        return pb.ListDeploymentsResponse(deployments=deployments, next_page_token=more)

    async def ListRevisions(  # noqa: D102
        self, request: pb.ListRevisionsRequest, context: Any
    ) -> pb.ListRevisionsResponse:
        name, limit = DeploymentName.parse(request.parent, "parent"), page_size(request.page_size)
        query = f"revisions {name}"
        (before,) = decode_token(request.page_token, query, tuple[int]) or (None,)
        found = await self._reading.list_revisions(name, before=before, limit=limit + 1)
        page = found[:limit]
        more = encode_token(query, (page[-1].number,)) if len(found) > limit else ""
        revisions = [codec.encode_revision(revision) for revision in page]
        return pb.ListRevisionsResponse(revisions=revisions, next_page_token=more)

    @endless
    async def StreamDeploymentEvents(  # noqa: D102
        self, request: pb.StreamDeploymentEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamDeploymentEventsResponse]:
        name = DeploymentName.parse(request.deployment, "deployment")
        stream = f"journal {name}"
        (after,) = decode_cursor(request.cursor, stream, tuple[int]) or (None,)
        async for news in self._reading.follow(name, after):
            yield _encode_news(news, encode_cursor(stream, (news.sequence,)))


def _encode_news(news: News, cursor: str) -> pb.StreamDeploymentEventsResponse:
    return pb.StreamDeploymentEventsResponse(
        events=[
            pb.DeploymentEvent(
                time=timestamp(told.time),
                revision=told.entry.revision,
                type=told.entry.type.value,
                message=told.entry.message,
                actor=told.entry.actor,
            )
            for told in news.told
        ],
        deployment=codec.encode_deployment(news.deployment) if news.deployment else None,
        cursor=cursor,
    )


Wish = (
    pb.DeployVersionRequest
    | pb.RollbackDeploymentRequest
    | pb.StopDeploymentRequest
    | pb.ContinueRolloutRequest
    | pb.AbortRolloutRequest
    | pb.ShadowVersionRequest
    | pb.StopShadowRequest
    | pb.PreviewVersionRequest
    | pb.StopPreviewRequest
)


def _order(request: Wish) -> Order:
    call = current_call()
    return Order(
        actor=call.caller.principal,
        credential=call.caller.credential,
        reason=codec.check_reason(request.reason),
        etag=request.etag,
        key=call.key(request),
    )


def _open_parent(text: str) -> EnvironmentName:
    parent = EnvironmentName.parse(text, "parent", wildcard=True)
    if parent.project == "-":
        raise invalid_field("parent", "must name a project")
    return parent
