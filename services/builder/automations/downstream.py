"""The calls that automations make to metadata, artifact and deployer, in their own words.

Each carries the caller's credential or the automation's delegation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2, artifact_service_pb2_grpc
from modelyard.deployer.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    environment_pb2,
    environment_service_pb2,
    environment_service_pb2_grpc,
)
from modelyard.metadata.v1 import (
    dataset_difference_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    notice_service_pb2,
    notice_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    version_pb2,
)

from services.builder.automations.domain import (
    ColumnDrift,
    Deploy,
    Execution,
    MetricSource,
    Training,
    Trigger,
    Verdict,
)
from services.common.errors import Reason, ServiceError
from services.common.names import AutomationName, VersionName
from services.common.rpc import status
from services.common.rpc.peers import Peer

_LISTEN_SECONDS = 0.3
_WATCH_SECONDS = 15.0
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Observation:
    """A value of a metric, of a run or an evaluation, and the cursor after it."""

    of: str
    value: float | None
    """None: it has none."""
    cursor: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a revision of a deployment goes."""

    outcome: str
    """IN_PROGRESS, LIVE, REPLACED, FAILED or SUPERSEDED."""
    failure: str = ""


class Neighbours:
    """Metadata, artifact and deployer, as automations need them."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def hold(self, name: AutomationName, artifact: str, *, credential: str) -> None:
        """Keep a source for as long as there is the automation.

        Raises:
            ServiceError: BYTES_MISSING when it is not stored.
        """
        hold = artifact_pb2.Hold(artifact=artifact, holder=str(name))
        request = artifact_service_pb2.HoldArtifactRequest(hold=hold)
        await self._peer.call(self._artifacts.HoldArtifact, request, credential=credential)

    async def release(self, name: AutomationName, artifact: str, *, credential: str) -> None:
        """Keep a source no longer."""
        hold = artifact_pb2.Hold(artifact=artifact, holder=str(name))
        request = artifact_service_pb2.ReleaseArtifactRequest(hold=hold)
        await self._peer.call(self._artifacts.ReleaseArtifact, request, credential=credential)

    async def require_environment(self, name: str, *, credential: str) -> None:
        """Refuse with RESOURCE_NOT_FOUND an environment that there is not."""
        stub: Any = self._peer.stub(environment_service_pb2_grpc.EnvironmentServiceStub)
        request = environment_service_pb2.GetEnvironmentRequest(name=name)
        await self._peer.call(stub.GetEnvironment, request, credential=credential)

    async def newest_versions(self, dataset: str, *, after: int, credential: str) -> list[int]:
        """Return the numbers of a dataset's newest versions after one, in order; at most 100."""
        stub: Any = self._peer.stub(dataset_service_pb2_grpc.DatasetServiceStub)
        request = dataset_service_pb2.ListDatasetVersionsRequest(parent=dataset, page_size=_PAGE)
        answer = await self._peer.call(stub.ListDatasetVersions, request, credential=credential)
        numbers = [int(v.name.rpartition("/")[2]) for v in answer.dataset_versions]
        return sorted(number for number in numbers if number > after)

    async def training(self, trigger: Trigger, model: str, *, credential: str) -> Training:
        """Say what the model's version in use was trained on, or why that is not known."""
        try:
            version = await self._in_use(trigger, model, credential)
            if not version.run:
                return Training(problem=f"{_short(version.name)} has no run")
            request = run_service_pb2.GetRunRequest(name=version.run)
            answer = await self._peer.call(self._runs.GetRun, request, credential=credential)
        except ServiceError as error:
            if error.reason is not Reason.RESOURCE_NOT_FOUND:
                raise
            return Training(problem=error.message)
        for used in answer.run.datasets:
            if used.role == trigger.role:
                return Training(version.name, used.dataset_version)
        return Training(problem=f"{_short(version.name)}'s run used no data as {trigger.role}")

    async def _in_use(self, trigger: Trigger, model: str, credential: str) -> version_pb2.Version:
        name = f"{model}/aliases/{trigger.alias}"
        if trigger.environment:
            name = f"{trigger.environment}/deployments/{model.rpartition('/')[2]}"
            asked = deployment_service_pb2.GetDeploymentRequest(name=name)
            found = await self._peer.call(
                self._deployments.GetDeployment, asked, credential=credential
            )
            live = found.deployment.live_revision
            versions = [r.version for r in found.deployment.revisions if live == r.number]
            if not versions:
                raise ServiceError(Reason.RESOURCE_NOT_FOUND, f"nothing is live of {name}")
            name = versions[0]
        request = model_service_pb2.ResolveVersionRequest(name=name)
        answer = await self._peer.call(self._models.ResolveVersion, request, credential=credential)
        version: version_pb2.Version = answer.version
        return version

    async def drift(
        self, project: str, base: str, other: str, *, credential: str
    ) -> list[ColumnDrift]:
        """Hold a dataset version against another, column by column."""
        stub: Any = self._peer.stub(dataset_service_pb2_grpc.DatasetServiceStub)
        request = dataset_service_pb2.CompareDatasetsRequest(
            parent=f"projects/{project}", base=base, other=other
        )
        answer = await self._peer.call(stub.CompareDatasets, request, credential=credential)
        return [_column_drift(column) for column in answer.difference.columns]

    async def cursor(self, trigger: Trigger, model: str, *, credential: str) -> str:
        """Return where to begin to look at a model's runs or evaluations: after all so far."""
        async for message in self._watch(trigger, model, "", credential):
            return str(message.cursor)
        return ""

    async def observe(
        self, trigger: Trigger, model: str, cursor: str, *, credential: str
    ) -> list[Observation]:
        """Return the values of a trigger's metric since a cursor, in order of commit.

        Raises:
            ServiceError: CURSOR_EXPIRED.
        """
        found: list[Observation] = []
        async for message in self._watch(trigger, model, cursor, credential):
            for change in message.changes:
                found += await self._read(trigger, change, credential)
        return found

    async def check(self, deploy: Deploy, version: str, *, credential: str) -> tuple[Verdict, ...]:
        """Have the deployer judge a version by conditions and by the environment's gates."""
        gates = [environment_pb2.Gate.FromString(gate) for gate in deploy.conditions]
        request = deployment_service_pb2.CheckVersionRequest(
            parent=deploy.environment, version=version, gates=gates
        )
        answer = await self._peer.call(
            self._deployments.CheckVersion, request, credential=credential
        )
        return tuple(Verdict(v.gate_id, v.passed, v.explanation) for v in answer.verdicts)

    async def deploy(
        self, execution: Execution, reason: str, *, credential: str
    ) -> tuple[str, int]:
        """Wish an execution's version live, once; return the deployment and its revision.

        Raises:
            ServiceError: GATE_REFUSED.
        """
        deploy = execution.action.deploy or Deploy("")
        request = deployment_service_pb2.DeployVersionRequest(
            parent=deploy.environment,
            version=execution.version,
            reason=reason,
            request_id=execution.request_id("deploy"),
        )
        if deploy.plan:
            request.plan.ParseFromString(deploy.plan)
        answer = await self._peer.call(
            self._deployments.DeployVersion, request, credential=credential
        )
        return str(answer.deployment.name), int(answer.revision)

    async def rollout(self, execution: Execution, *, credential: str) -> Rollout:
        """Say how the revision of an execution goes."""
        request = deployment_service_pb2.GetDeploymentRequest(name=execution.deployment)
        answer = await self._peer.call(
            self._deployments.GetDeployment, request, credential=credential
        )
        for revision in answer.deployment.revisions:
            if revision.number == execution.revision:
                return _rollout(revision)
        # Those that are neither wished for nor live are in the history alone.
        listing = deployment_service_pb2.ListRevisionsRequest(
            parent=execution.deployment, page_size=1_000
        )
        history = await self._peer.call(
            self._deployments.ListRevisions, listing, credential=credential
        )
        found = [r for r in history.revisions if r.number == execution.revision]
        return _rollout(found[0]) if found else Rollout("SUPERSEDED")

    async def tell(self, execution: Execution, *, credential: str) -> None:
        """Tell the project's ledger how an execution ended, once."""
        stub: Any = self._peer.stub(notice_service_pb2_grpc.NoticeServiceStub)
        request = notice_service_pb2.PublishExecutionRequest(
            execution=str(execution.name),
            state=execution.state.value,
            explanation=execution.explanation,
            version=execution.version,
            request_id=execution.request_id(f"tell/{execution.state}"),
        )
        await self._peer.call(stub.PublishExecution, request, credential=credential)

    async def _watch(
        self, trigger: Trigger, model: str, cursor: str, credential: str
    ) -> AsyncIterator[Any]:
        """Yield the messages of a watch until it is quiet for a moment; the first comes at once."""
        method: Callable[..., Any]
        if trigger.source is MetricSource.EVALUATION:
            method, kind = self._models.WatchModels, "VERSION_EVALUATED"
            make: Any = model_service_pb2.WatchModelsRequest
        else:
            method, kind = self._runs.WatchRuns, "ENDED"
            make = run_service_pb2.WatchRunsRequest
        request = make(parent=model, filter=f"type = {kind}", cursor=cursor)
        bearer = [("authorization", f"Bearer {credential}")]
        stream = method(request, metadata=bearer, timeout=_WATCH_SECONDS)
        try:
            wait: float | None = None
            while True:
                async with asyncio.timeout(wait):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    return
                yield message
                wait = _LISTEN_SECONDS
        except TimeoutError:
            return
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error
        finally:
            stream.cancel()

    async def _read(self, trigger: Trigger, change: Any, credential: str) -> list[Observation]:
        """Return what a change says of a trigger's metric."""
        if trigger.source is MetricSource.EVALUATION:
            value = await self._evaluation(change.name, change.evaluation, trigger, credential)
            return [Observation(change.evaluation, value, change.cursor)]
        succeeded = change.run.state == run_pb2.RUN_STATE_SUCCEEDED
        metrics = [m for m in change.run.metrics if succeeded and m.key == trigger.metric]
        value = None
        for metric in metrics:
            best = metric.best if metric.HasField("best") else None
            value = best if trigger.source is MetricSource.RUN_BEST else metric.last
        return [Observation(change.name, value, change.cursor)]

    async def _evaluation(
        self, version: str, name: str, trigger: Trigger, credential: str
    ) -> float | None:
        request = model_service_pb2.ListEvaluationsRequest(parent=version, page_size=_PAGE)
        while True:
            answer = await self._peer.call(
                self._models.ListEvaluations, request, credential=credential
            )
            for evaluation in answer.evaluations:
                if evaluation.name == name:
                    metrics: dict[str, float] = dict(evaluation.metrics)
                    return metrics.get(trigger.metric)
            if not answer.next_page_token:
                return None
            request.page_token = answer.next_page_token

    @property
    def _artifacts(self) -> Any:
        return self._peer.stub(artifact_service_pb2_grpc.ArtifactServiceStub)

    @property
    def _deployments(self) -> Any:
        return self._peer.stub(deployment_service_pb2_grpc.DeploymentServiceStub)

    @property
    def _models(self) -> Any:
        return self._peer.stub(model_service_pb2_grpc.ModelServiceStub)

    @property
    def _runs(self) -> Any:
        return self._peer.stub(run_service_pb2_grpc.RunServiceStub)


def _column_drift(column: dataset_difference_pb2.ColumnDifference) -> ColumnDrift:
    def known(field: Literal["psi", "js_distance", "psi_threshold"]) -> float | None:
        return getattr(column, field) if column.HasField(field) else None

    return ColumnDrift(
        column=column.column,
        psi=known("psi"),
        js_distance=known("js_distance"),
        psi_limit=known("psi_threshold"),
        drifted=column.drifted,
        note=column.note,
    )


def _short(version: str) -> str:
    """Write a version's name as people do, such as `churn/7`."""
    name = VersionName.parse(version)
    return f"{name.model}/{name.version}"


def _rollout(revision: deployment_pb2.Revision) -> Rollout:
    name = deployment_pb2.RevisionOutcome.Name(revision.outcome)
    failure = f"{revision.failure.reason}: {revision.failure.message}"
    return Rollout(name.removeprefix("REVISION_OUTCOME_"), failure)
