"""A fixed script of operations with fixed request ids, that knows what was acknowledged to it.

It plays all who call the services: somebody who registers, builds and deploys, the worker
and the inference controller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from modelyard import Client
from modelyard.builder.v1 import (
    build_event_pb2,
    build_pb2,
    build_service_pb2,
    build_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from modelyard.deployer.v1 import (
    assignment_pb2,
    controller_service_pb2,
    controller_service_pb2_grpc,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    environment_pb2,
    environment_service_pb2,
    environment_service_pb2_grpc,
)
from modelyard.errors import NotFoundError
from modelyard.metadata.v1 import (
    alias_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    version_pb2,
)

from tests.e2e.suite import TERMINAL, until
from tests.faults.installation import PROJECT, Installation
from tests.faults.process import Process

MODEL = f"{PROJECT}/models/crash"
ENVIRONMENT = f"{PROJECT}/environments/e"
LIVE = deployment_pb2.DEPLOYMENT_STATE_LIVE
READY = deployment_pb2.VARIANT_STATE_READY
PHASES = [kind for kind in build_pb2.PhaseKind.values() if kind]
SECONDS = 10.0


class Script:
    """Calls in a fixed order, with fixed request ids."""

    def __init__(self, installation: Installation, tree: Path) -> None:
        self.acknowledged: dict[str, str] = {}
        self.batches: set[tuple[int, int]] = set()
        """Attempt and sequence of each batch of lines that was acknowledged."""
        self.problem: Exception | None = None
        self._installation, self._tree = installation, tree
        self._ended = False

    def run(self, process: Process, begun: Path | None = None) -> bool:
        """Run it to its end; False when the services died meanwhile.

        Args:
            process: the services.
            begun: a file to make when they answer.
        """
        self._ended = False
        if not self._installation.comes_up(process):
            return False
        if begun is not None:
            begun.touch()
        client = self._installation.client()
        channel = grpc.insecure_channel(self._installation.address)
        steps = threading.Thread(target=self._attempt, args=(client, channel))
        steps.start()
        while steps.is_alive() and process.poll() is None:
            steps.join(0.02)
        # A push waits a while for services to come back: these do not.
        client.close()
        channel.close()
        steps.join()
        return self._ended

    def confirm(self) -> None:
        """See that what was acknowledged is there, before anything is asked for once more."""
        with self._installation.client() as client:
            seen: dict[str, Callable[[str], str]] = {
                "model": lambda name: client.models.get(name).name,
                "run": lambda name: client.runs.get(name).name,
                "version": lambda name: _ready(client.versions.get(name)),
                "alias": lambda _: client.aliases.get(MODEL, "live").version,
                "environment": lambda name: client.environments.get(name).name,
                "build": lambda name: client.builds.get(name).name,
                "built": lambda name: _ready(client.versions.get(name)),
                "deployment": lambda _: client.deployments.get("crash", environment="e").name,
                "live": lambda _: _live_version(client),
            }
            for step, name in self.acknowledged.items():
                if step in seen:
                    try:
                        found = seen[step](name)
                    except NotFoundError:
                        found = "nothing"
                    assert found == name, f"{step} was acknowledged and is lost: {found}"

    def results(self) -> None:
        """See that all results are there, each once."""
        with self._installation.client() as client:
            versions = sorted(version.name for version in client.versions.list("crash"))
            assert versions == [f"{MODEL}/versions/{number}" for number in (1, 2)]
            assert len(list(client.builds.list())) == 1
            assert _live_version(client) == self.acknowledged["version"]
            events = client.builds.logs(self.acknowledged["build"])
            lines = [event.log.text for event in events if event.HasField("log")]
            assert len(lines) == len(set(lines)), "a batch was kept twice"
            lost = {f"line {a} {s}" for a, s in self.batches} - set(lines)
            assert not lost, f"lines were acknowledged and are lost: {lost}"

    def _attempt(self, client: Client, channel: grpc.Channel) -> None:
        try:
            self._register(client, channel)
            self._build(channel)
            self._deploy(client, channel)
            self._ended = True
        except Exception as error:  # the services were killed, or it is told by who runs this
            self.problem = error

    def _register(self, client: Client, channel: grpc.Channel) -> None:
        models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        runs: Any = run_service_pb2_grpc.RunServiceStub(channel)
        environments: Any = environment_service_pb2_grpc.EnvironmentServiceStub(channel)
        model = model_service_pb2.CreateModelRequest(
            parent=PROJECT, model_id="crash", model=model_pb2.Model()
        )
        self._did("model", self._call(models.CreateModel, model).model.name)
        run = run_service_pb2.CreateRunRequest(parent=MODEL)
        self._did("run", self._call(runs.CreateRun, run).run.name)
        self._did("artifact", client.artifacts.push(self._tree).name)
        version = model_service_pb2.CreateVersionRequest(
            parent=MODEL, version=version_pb2.Version(artifact=self.acknowledged["artifact"])
        )
        self._did("version", self._call(models.CreateVersion, version).version.name)
        alias = model_service_pb2.UpdateAliasRequest(
            alias=alias_pb2.Alias(name=f"{MODEL}/aliases/live", version=f"{MODEL}/versions/1")
        )
        self._did("alias", self._call(models.UpdateAlias, alias).alias.version)
        environment = environment_service_pb2.CreateEnvironmentRequest(
            parent=PROJECT, environment_id="e", environment=environment_pb2.Environment()
        )
        made = self._call(environments.CreateEnvironment, environment)
        self._did("environment", made.environment.name)

    def _build(self, channel: grpc.Channel) -> None:
        builds: Any = build_service_pb2_grpc.BuildServiceStub(channel)
        workers: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
        spec = build_pb2.BuildSpec(source=self.acknowledged["artifact"])
        order = build_service_pb2.CreateBuildRequest(
            parent=PROJECT, build=build_pb2.Build(model=MODEL, spec=spec)
        )
        name = self._did("build", self._call(builds.CreateBuild, order).build.name)
        read = build_service_pb2.GetBuildRequest(name=name)
        ask = worker_service_pb2.LeaseBuildRequest(worker="script")
        ask.wait.FromMilliseconds(300)
        while (build := self._call(builds.GetBuild, read).build).state not in TERMINAL:
            answer = self._call(workers.LeaseBuild, ask, "worker")
            if answer.HasField("lease"):
                self._work(workers, answer.lease)
        assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
        self._did("built", build.version)

    def _work(self, workers: Any, lease: worker_service_pb2.Lease) -> None:
        for kind in PHASES:
            self._phase(workers, lease, kind, build_pb2.PHASE_STATE_RUNNING)
            if kind != build_pb2.PHASE_KIND_REGISTER:
                self._phase(workers, lease, kind, build_pb2.PHASE_STATE_SUCCEEDED)
        batches = [_batch(lease, sequence) for sequence in (1, 2, 3)]
        for answer in workers.ReportEvents(
            iter(batches), metadata=self._bearer("worker"), timeout=SECONDS
        ):
            self.batches.add((lease.attempt, answer.acknowledged_sequence))
        request = worker_service_pb2.RegisterBuildRequest(
            lease=lease, artifact=self.acknowledged["artifact"], tests_passed=True
        )
        self._did("built", self._call(workers.RegisterBuild, request, "worker").version)

    def _phase(self, workers: Any, lease: worker_service_pb2.Lease, kind: Any, state: Any) -> None:
        request = worker_service_pb2.ReportPhaseRequest(lease=lease, kind=kind, state=state)
        self._call(workers.ReportPhase, request, "worker")

    def _deploy(self, client: Client, channel: grpc.Channel) -> None:
        deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        wish = deployment_service_pb2.DeployVersionRequest(
            parent=ENVIRONMENT, version=f"{MODEL}/versions/1"
        )
        answer = self._call(deployments.DeployVersion, wish)
        self._did("deployment", answer.deployment.name)
        with self._controller(channel):
            until(
                lambda: client.deployments.get("crash", environment="e").state == LIVE,
                what="the deployment to be live",
            )
        self._did("live", _live_version(client))

    @contextmanager
    def _controller(self, channel: grpc.Channel) -> Iterator[None]:
        """Do all that is assigned at once."""
        stub: Any = controller_service_pb2_grpc.ControllerServiceStub(channel)
        watch = controller_service_pb2.WatchAssignmentsRequest(
            environment=ENVIRONMENT, controller="script"
        )
        stream = stub.WatchAssignments(watch, metadata=self._bearer("agent"))

        def obey() -> None:
            try:
                for message in stream:
                    for assignment in message.assignments:
                        self._call(stub.ReportStatus, _obeyed(assignment), "agent")
            except (grpc.RpcError, ValueError):  # it is over, or the services are dead
                return

        thread = threading.Thread(target=obey)
        thread.start()
        try:
            yield
        finally:
            stream.cancel()
            thread.join()

    def _did(self, step: str, name: str) -> str:
        assert self.acknowledged.setdefault(step, name) == name, f"{step} was done twice"
        return name

    def _call(self, method: Any, request: Any, who: str = "admin") -> Any:
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = f"crash-{request.DESCRIPTOR.name}"
        return method(request, metadata=self._bearer(who), timeout=SECONDS)

    def _bearer(self, who: str) -> Sequence[tuple[str, str]]:
        return [("authorization", f"Bearer {self._installation.token(who)}")]


def _batch(lease: worker_service_pb2.Lease, sequence: int) -> Any:
    batch = build_event_pb2.BuildEventBatch()
    batch.events.add().log.text = f"line {lease.attempt} {sequence}"
    return worker_service_pb2.ReportEventsRequest(
        lease=lease, sequence=sequence, batch=batch.SerializeToString()
    )


def _obeyed(assignment: assignment_pb2.Assignment) -> controller_service_pb2.ReportStatusRequest:
    status = assignment_pb2.AssignmentStatus(
        deployment=assignment.deployment, generation=assignment.generation, weights_applied=True
    )
    for variant in assignment.variants:
        status.variants.add(revision=variant.revision, state=READY)
    return controller_service_pb2.ReportStatusRequest(
        controller="script", status=status, address="127.0.0.1:1"
    )


def _ready(version: version_pb2.Version) -> str:
    return version.name if version.state == version_pb2.VERSION_STATE_READY else "not READY"


def _live_version(client: Client) -> str:
    found = client.deployments.get("crash", environment="e")
    return next(r.version for r in found.revisions if r.number == found.live_revision)
