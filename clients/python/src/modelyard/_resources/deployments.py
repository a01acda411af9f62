"""`client.deployments`: versions put into production, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from modelyard._names import Ref, project_of
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, followed, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, ask, call, new_request_id, pages
from modelyard._transport.resume import Follow
from modelyard.deployer.v1 import deployment_pb2, environment_pb2, rollout_pb2
from modelyard.deployer.v1 import deployment_service_pb2 as service
from modelyard.errors import FailedPreconditionError
from modelyard.metadata.v1 import (
    dataset_difference_pb2,
    dataset_service_pb2,
    model_service_pb2,
    run_service_pb2,
)
from modelyard.rollouts import Analysis, Serving, make_plan

T = TypeVar("T")

_SETTLED = (
    deployment_pb2.DEPLOYMENT_STATE_LIVE,
    deployment_pb2.DEPLOYMENT_STATE_FAILED,
    deployment_pb2.DEPLOYMENT_STATE_STOPPED,
)


class _Deployments(Group):
    @unary
    def deploy(
        self,
        version: Ref,
        *,
        environment: Ref,
        canary: Sequence[int] = (),
        hold: float = 0.0,
        manual: bool = False,
        analysis: Analysis | None = None,
        progress_timeout: float | None = None,
        keep_warm: bool = False,
        serving: Serving | None = None,
        reason: str = "",
        etag: str = "",
    ) -> Call[deployment_pb2.Deployment]:
        """Put a version into an environment: start it, wait until it is ready, shift, drain.

        The answer comes at once; `follow` shows how it goes, `wait` returns how it went.

        Args:
            version: Which one.
            environment: Where to.
            canary: The shares in percent that it gets one after the other, such as
                `[5, 25, 100]`; empty: all requests at once.
            hold: How long it keeps each share at least, in seconds.
            manual: Whether each share is kept until somebody calls `resume`.
            analysis: What must hold before it gets more; else the rollout is aborted.
            progress_timeout: In seconds, how long it may take to get ready, and how long an
                analysis may stay without a result.
            keep_warm: Keep the version it replaces running, for a rollback that starts nothing.
            serving: How it is served.
            reason: Why, for the history.
            etag: Deploy only if nothing changed since.

        Raises:
            GateRefusedError: A gate of the environment refused the version.
        """
        request = service.DeployVersionRequest(
            parent=self._names.environment(environment),
            version=self._names.target(version),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
            plan=make_plan(
                canary,
                hold=hold,
                manual=manual,
                analysis=analysis,
                progress_timeout=progress_timeout,
                keep_warm=keep_warm,
            ),
            serving=None if serving is None else serving.to_proto(),
        )
        return call(request, service.DeployVersionResponse, lambda r: r.deployment)

    @unary
    def resume(
        self, model: Ref, *, environment: Ref | None = None, reason: str = "", etag: str = ""
    ) -> Call[deployment_pb2.Deployment]:
        """Let a rollout that waits for somebody take its next step."""
        request = service.ContinueRolloutRequest(
            name=self._names.deployment(model, environment),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.ContinueRolloutResponse, lambda r: r.deployment)

    @unary
    def abort(
        self, model: Ref, *, environment: Ref | None = None, reason: str = "", etag: str = ""
    ) -> Call[deployment_pb2.Deployment]:
        """Give an unfinished rollout up: what was live gets all requests again."""
        request = service.AbortRolloutRequest(
            name=self._names.deployment(model, environment),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.AbortRolloutResponse, lambda r: r.deployment)

    @unary
    def shadow(
        self,
        version: Ref,
        *,
        environment: Ref,
        percent: int = 100,
        serving: Serving | None = None,
        reason: str = "",
        etag: str = "",
    ) -> Call[deployment_pb2.Deployment]:
        """Have a version get copies of the live one's requests; its answers are dropped."""
        request = service.ShadowVersionRequest(
            parent=self._names.environment(environment),
            version=self._names.target(version),
            mirror_percent=percent,
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
            serving=None if serving is None else serving.to_proto(),
        )
        return call(request, service.ShadowVersionResponse, lambda r: r.deployment)

    @unary
    def stop_shadow(
        self, model: Ref, *, environment: Ref | None = None, reason: str = "", etag: str = ""
    ) -> Call[deployment_pb2.Deployment]:
        """End a shadow."""
        request = service.StopShadowRequest(
            name=self._names.deployment(model, environment),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.StopShadowResponse, lambda r: r.deployment)

    @unary
    def preview(
        self,
        version: Ref,
        *,
        environment: Ref,
        header: tuple[str, str],
        serving: Serving | None = None,
        reason: str = "",
        etag: str = "",
    ) -> Call[deployment_pb2.Deployment]:
        """Have a version answer the requests with a header, and no others.

        Args:
            version: Which one.
            environment: Where, beside what is live there.
            header: The header's name, in lower case, and its whole value.
            serving: How it is served.
            reason: Why, for the history.
            etag: Only if nothing changed since.

        Raises:
            FailedPreconditionError: Nothing is live there.
        """
        name, value = header
        request = service.PreviewVersionRequest(
            parent=self._names.environment(environment),
            version=self._names.target(version),
            header_match=rollout_pb2.HeaderMatch(name=name, value=value),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
            serving=None if serving is None else serving.to_proto(),
        )
        return call(request, service.PreviewVersionResponse, lambda r: r.deployment)

    @unary
    def stop_preview(
        self, model: Ref, *, environment: Ref | None = None, reason: str = "", etag: str = ""
    ) -> Call[deployment_pb2.Deployment]:
        """End a preview: the requests with its header go the way of all others."""
        request = service.StopPreviewRequest(
            name=self._names.deployment(model, environment),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.StopPreviewResponse, lambda r: r.deployment)

    @unary
    def check(
        self, version: Ref, *, environment: Ref
    ) -> Call[Sequence[environment_pb2.GateVerdict]]:
        """Return how each gate of an environment judges a version; nothing changes."""
        request = service.CheckVersionRequest(
            parent=self._names.environment(environment), version=self._names.target(version)
        )
        return call(request, service.CheckVersionResponse, lambda r: list(r.verdicts))

    @unary
    def rollback(
        self,
        model: Ref,
        *,
        environment: Ref | None = None,
        revision: int = 0,
        reason: str = "",
        etag: str = "",
    ) -> Call[deployment_pb2.Deployment]:
        """Go back to the revision that was live before, or to the one given."""
        request = service.RollbackDeploymentRequest(
            name=self._names.deployment(model, environment),
            revision=revision,
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.RollbackDeploymentResponse, lambda r: r.deployment)

    @unary
    def stop(
        self, model: Ref, *, environment: Ref | None = None, reason: str = "", etag: str = ""
    ) -> Call[deployment_pb2.Deployment]:
        """Serve nothing any more; the history stays."""
        request = service.StopDeploymentRequest(
            name=self._names.deployment(model, environment),
            reason=reason,
            etag=etag,
            request_id=new_request_id(),
        )
        return call(request, service.StopDeploymentResponse, lambda r: r.deployment)

    @unary
    def get(self, model: Ref, *, environment: Ref | None = None) -> Call[deployment_pb2.Deployment]:
        """Get the deployment of a model in an environment."""
        return _get(self._names.deployment(model, environment))

    @flow
    def drift(
        self,
        model: Ref,
        *,
        environment: Ref | None = None,
        base: Ref | None = None,
        role: str = "train",
    ) -> Flow[dataset_difference_pb2.DatasetDifference]:
        """Hold the requests that were sampled of the live version against its training data.

        Args:
            model: Which model's deployment.
            environment: Where.
            base: A dataset version to hold them against, `prices/3` in short, instead of the one
                that the run of the live version used.
            role: As what that run used it.

        Raises:
            FailedPreconditionError: No requests were sampled yet, or the version has no such data.
        """
        deployment = yield from ask(_get(self._names.deployment(model, environment)))
        live = next((r for r in deployment.revisions if r.number == deployment.live_revision), None)
        if live is None or not live.sample:
            problem = f"no requests of what is live in {deployment.name} were sampled yet"
            raise FailedPreconditionError(problem, reason="WRONG_STATE")
        if base is not None:
            against = self._names.dataset_version(base)
        else:
            against = yield from _data_of(live.version, role)
        compare = dataset_service_pb2.CompareDatasetsRequest(
            parent=project_of(against), base=against, other=live.sample
        )
        answer = dataset_service_pb2.CompareDatasetsResponse
        return (yield from ask(call(compare, answer, lambda r: r.difference)))

    @paged
    def list(self, *, environment: Ref | None = None) -> Pages[deployment_pb2.Deployment]:
        """List the deployments of an environment, or of all of the project's."""
        request = service.ListDeploymentsRequest(parent=self._names.environment(environment))
        return pages(request, service.ListDeploymentsResponse, lambda r: r.deployments)

    @paged
    def history(
        self, model: Ref, *, environment: Ref | None = None
    ) -> Pages[deployment_pb2.Revision]:
        """List a deployment's revisions, newest first: who, when, why, how it went."""
        request = service.ListRevisionsRequest(parent=self._names.deployment(model, environment))
        return pages(request, service.ListRevisionsResponse, lambda r: r.revisions)

    @followed
    def follow(
        self,
        model: Ref,
        *,
        environment: Ref | None = None,
        cursor: str = "",
        timeout: float | None = None,
    ) -> Follow[service.DeploymentEvent]:
        """Iterate over a deployment's journal until it settles: LIVE, FAILED or STOPPED."""
        name = self._names.deployment(model, environment)
        return _until_settled(name, lambda r: r.events, cursor=cursor, timeout=timeout)

    @followed
    def updates(
        self, model: Ref, *, environment: Ref | None = None, cursor: str = ""
    ) -> Follow[service.StreamDeploymentEventsResponse]:
        """Iterate without end over the journal's messages: entries, the deployment, the cursor."""
        request = service.StreamDeploymentEventsRequest(
            deployment=self._names.deployment(model, environment), cursor=cursor
        )
        return Follow(request, service.StreamDeploymentEventsResponse, lambda r: [r], endless=True)

    @flow
    def wait(
        self, model: Ref, *, environment: Ref | None = None, timeout: float | None = None
    ) -> Flow[deployment_pb2.Deployment]:
        """Return the deployment once it settled; DeadlineExceededError after `timeout`."""
        name = self._names.deployment(model, environment)
        yield _until_settled(name, lambda _: (), timeout=timeout)
        return (yield from ask(_get(name)))


class Deployments(_Deployments, SyncGroup):
    """Versions put into production, and back."""


class AsyncDeployments(_Deployments, AsyncGroup):
    """Versions put into production, and back."""


def _get(name: str) -> Call[deployment_pb2.Deployment]:
    request = service.GetDeploymentRequest(name=name)
    return call(request, service.GetDeploymentResponse, lambda r: r.deployment)


def _data_of(version: str, role: str) -> Flow[str]:
    """Return the dataset version that the run of a version used in a role."""
    get = model_service_pb2.GetVersionRequest(name=version)
    run = yield from ask(call(get, model_service_pb2.GetVersionResponse, lambda r: r.version.run))
    used: Sequence[str] = ()
    if run:
        request = run_service_pb2.GetRunRequest(name=run)
        found = yield from ask(call(request, run_service_pb2.GetRunResponse, lambda r: r.run))
        used = [use.dataset_version for use in found.datasets if use.role == role]
    if not used:
        problem = f"the run of {version} used no data as {role!r}: name a base"
        raise FailedPreconditionError(problem, reason="WRONG_STATE")
    return used[0]


def _until_settled(
    name: str,
    pick: Callable[[service.StreamDeploymentEventsResponse], Iterable[T]],
    *,
    cursor: str = "",
    timeout: float | None = None,
) -> Follow[T]:
    request = service.StreamDeploymentEventsRequest(deployment=name, cursor=cursor)
    return Follow(
        request,
        service.StreamDeploymentEventsResponse,
        pick,
        ended=lambda r: r.HasField("deployment") and r.deployment.state in _SETTLED,
        endless=True,
        timeout=timeout,
    )
