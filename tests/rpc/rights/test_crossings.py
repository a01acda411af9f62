"""No deputy is confused: whoever may do all in one project reaches nothing of another by it.

Ada is an admin of `p`. She names what lies in `q` wherever a request for `p` names anything
beside its resource; a service that follows the name carries her rights, not its own. What is
there in `q` and what is not are told apart nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from modelyard import Client
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as artifacts
from modelyard.builder.v1 import automation_pb2, build_pb2
from modelyard.builder.v1 import automation_service_pb2 as automations
from modelyard.builder.v1 import build_service_pb2 as builds
from modelyard.common.v1 import access_pb2
from modelyard.deployer.v1 import deployment_service_pb2 as deployments
from modelyard.deployer.v1 import environment_service_pb2 as environments
from modelyard.metadata.v1 import (
    alias_pb2,
    dataset_pb2,
    evaluation_pb2,
    run_pb2,
    version_pb2,
    version_use_pb2,
)
from modelyard.metadata.v1 import comparison_service_pb2 as comparisons
from modelyard.metadata.v1 import dataset_service_pb2 as datasets
from modelyard.metadata.v1 import lineage_service_pb2 as lineage
from modelyard.metadata.v1 import model_service_pb2 as models
from modelyard.metadata.v1 import project_service_pb2 as projects
from modelyard.metadata.v1 import run_service_pb2 as runs

from tests.rpc.metadata.conftest import running
from tests.rpc.rights.test_matrix import METHODS, Refusal, refusal_of

SECONDS = 60.0
P, MODEL = "projects/p", "projects/p/models/m"
VERSION, RUN = f"{MODEL}/versions/1", f"{MODEL}/runs/r"
LET_DOWN = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What Ada names of another project."""

    project: str
    model: str
    artifact: str

    @property
    def version(self) -> str:
        return f"{self.model}/versions/1"


@dataclass(frozen=True, slots=True)
class House:
    """Running services with two projects, one of them Ada's."""

    address: str
    token: str
    artifact: str
    digest: str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "weights").write_text("secret weights of q")
    own = tmp_path_factory.mktemp("own")
    (own / "weights").write_text("weights of p")
    with running(tmp_path_factory.mktemp("crossings")) as services, services.client() as root:
        address, secret = services.layout.address, services.token()
        for project, tree in (("p", own), ("q", folder)):
            root.projects.create(project)
            with Client(address, token=secret, project=project) as client:
                pushed = _furnish(client, tree)
        token = root.tokens.create("user:ada", roles={"p": "admin"}).secret
        yield House(address, token, pushed, pushed.rpartition("/")[2])


def _furnish(client: Client, tree: Path) -> str:
    artifact = client.artifacts.push(tree).name
    client.models.create("m")
    client.runs.create("m", run_id="r")
    client.versions.create("m", artifact, run="m/r", aliases=["production"])
    client.environments.create("e")
    client.datasets.create_version("d", digest="0" * 64)
    return artifact


def _requests(there: Elsewhere) -> dict[str, list[Message]]:
    """Return requests for `p` that name what is elsewhere, by RPC."""
    return {**_of_metadata(there), **_of_bytes(there), **_of_work(there)}


def _of_metadata(there: Elsewhere) -> dict[str, list[Message]]:
    version, model, artifact = there.version, there.model, there.artifact
    data = f"{there.project}/datasets/d/versions/1"
    of_q = run_pb2.DatasetUse(dataset_version=data, role="train")
    return {
        "metadata.ModelService/CreateVersion": [
            models.CreateVersionRequest(
                parent=MODEL, version=version_pb2.Version(artifact=artifact)
            ),
            models.CreateVersionRequest(
                parent=MODEL,
                version=version_pb2.Version(artifact=artifact, run=f"{model}/runs/r"),
            ),
        ],
        "metadata.ModelService/UpdateAlias": [
            models.UpdateAliasRequest(
                alias=alias_pb2.Alias(name=f"{MODEL}/aliases/a", version=version)
            )
        ],
        "metadata.ModelService/CreateEvaluation": [
            models.CreateEvaluationRequest(
                parent=VERSION,
                evaluation=evaluation_pb2.Evaluation(metrics={"f1": 1.0}, dataset_version=data),
            )
        ],
        "metadata.DatasetService/CreateDatasetVersion": [
            datasets.CreateDatasetVersionRequest(
                parent=f"{P}/datasets/d",
                dataset_version=dataset_pb2.DatasetVersion(digest="0" * 64, artifact=artifact),
            )
        ],
        "metadata.DatasetService/CompareDatasets": [
            datasets.CompareDatasetsRequest(
                parent=P,
                base=data,
                other=data,
            )
        ],
        "metadata.ComparisonService/Compare": [
            comparisons.CompareRequest(parent=P, names=[version, VERSION])
        ],
        "metadata.LineageService/StartVersionUse": [
            lineage.StartVersionUseRequest(
                version_use=version_use_pb2.VersionUse(
                    version=VERSION, user=f"{there.project}/environments/e/deployments/m"
                )
            )
        ],
        "metadata.RunService/IngestRunData": [
            runs.IngestRunDataRequest(run=RUN, writer="w", end_sequence=1, datasets=[of_q])
        ],
        "metadata.ProjectService/IssueDelegation": [
            projects.IssueDelegationRequest(
                resource=f"{there.project}/builds/b", rights=[access_pb2.RIGHT_READ]
            )
        ],
    }


def _of_bytes(there: Elsewhere) -> dict[str, list[Message]]:
    version, artifact = there.version, there.artifact
    return {
        "artifact.ArtifactService/HoldArtifact": [
            artifacts.HoldArtifactRequest(
                hold=artifact_pb2.Hold(artifact=f"{P}/artifacts/{'0' * 64}", holder=version)
            )
        ],
        "artifact.ArtifactService/HoldArtifacts": [
            artifacts.HoldArtifactsRequest(
                parent=P, holds=[artifact_pb2.Hold(artifact=artifact, holder=VERSION)]
            )
        ],
        "artifact.ArtifactService/ReleaseHolder": [
            artifacts.ReleaseHolderRequest(parent=P, holder=version)
        ],
    }


def _of_work(there: Elsewhere) -> dict[str, list[Message]]:
    place = f"{P}/environments/e"
    version, model, artifact = there.version, there.model, there.artifact
    return {
        "builder.BuildService/CreateBuild": [
            builds.CreateBuildRequest(
                parent=P,
                build=build_pb2.Build(
                    model=MODEL, spec=build_pb2.BuildSpec(source=artifact, entry="model:M")
                ),
            ),
            builds.CreateBuildRequest(
                parent=P,
                build=build_pb2.Build(
                    model=model, spec=build_pb2.BuildSpec(source=artifact, entry="model:M")
                ),
            ),
        ],
        "builder.AutomationService/CreateAutomation": [
            automations.CreateAutomationRequest(
                parent=P, automation_id="a", automation=automation_pb2.Automation(model=model)
            )
        ],
        "deployer.DeploymentService/DeployVersion": [
            deployments.DeployVersionRequest(parent=place, version=version),
            deployments.DeployVersionRequest(parent=place, version=f"{model}/aliases/production"),
        ],
        "deployer.DeploymentService/CheckVersion": [
            deployments.CheckVersionRequest(parent=place, version=version)
        ],
        "deployer.DeploymentService/ShadowVersion": [
            deployments.ShadowVersionRequest(parent=place, version=version, mirror_percent=1)
        ],
        "deployer.DeploymentService/PreviewVersion": [
            deployments.PreviewVersionRequest(parent=place, version=version)
        ],
        "deployer.EnvironmentService/ApproveVersion": [
            environments.ApproveVersionRequest(environment=place, version=version)
        ],
    }


def _ask(house: House, rpc: str, *requests: Message) -> Refusal | None:
    package, _, name = rpc.partition(".")
    path = f"/modelyard.{package}.v1.{name}"
    method, metadata = METHODS[path], (("authorization", f"Bearer {house.token}"),)
    wires = [request.SerializeToString() for request in requests]
    channel: Any
    with grpc.insecure_channel(house.address) as channel:
        try:
            if method.client_streaming and method.server_streaming:
                list(channel.stream_stream(path)(iter(wires), metadata=metadata, timeout=SECONDS))
            elif method.client_streaming:
                channel.stream_unary(path)(iter(wires), metadata=metadata, timeout=SECONDS)
            else:
                channel.unary_unary(path)(wires[0], metadata=metadata, timeout=SECONDS)
        except grpc.RpcError as error:
            return refusal_of(error)
    return None


RPCS = sorted(_requests(Elsewhere("projects/q", "projects/q/models/m", "projects/q/artifacts/x")))


@pytest.mark.parametrize("rpc", RPCS)
def test_a_name_of_another_project_opens_nothing(house: House, rpc: str) -> None:
    known = Elsewhere("projects/q", "projects/q/models/m", house.artifact)
    absent = f"projects/q/artifacts/{'1' * 64}"
    nowhere = absent.replace("/q/", "/nowhere/")
    others = (
        Elsewhere("projects/q", "projects/q/models/absent", absent),
        Elsewhere("projects/nowhere", "projects/nowhere/models/m", nowhere),
    )
    for number, request in enumerate(_requests(known)[rpc]):
        refusal = _ask(house, rpc, request)
        assert refusal is not None, request
        assert refusal.code in LET_DOWN, refusal
        for other in others:
            twin = _ask(house, rpc, _requests(other)[rpc][number])
            assert twin is not None
            assert twin.verdict == refusal.verdict


STREAMS: dict[str, list[Message]] = {
    "artifact.ArtifactService/WriteChunks": [
        artifacts.WriteChunksRequest(parent=P),
        artifacts.WriteChunksRequest(parent="projects/q", chunks=[artifacts.Chunk(data=b"x")]),
    ],
    "artifact.ArtifactService/CommitFile": [
        artifacts.CommitFileRequest(parent=P, digest=b"0" * 32, size_bytes=1),
        artifacts.CommitFileRequest(parent="projects/q", chunk_digests=[b"0" * 32]),
    ],
    "metadata.RunService/IngestRunData": [
        runs.IngestRunDataRequest(run=RUN, writer="w", end_sequence=1),
        runs.IngestRunDataRequest(run=RUN.replace("/p/", "/q/"), writer="w", end_sequence=2),
    ],
}


@pytest.mark.parametrize("rpc", sorted(STREAMS))
def test_a_stream_stays_in_the_project_it_began_in(house: House, rpc: str) -> None:
    refusal = _ask(house, rpc, *STREAMS[rpc])
    assert refusal is not None
    assert refusal.code in LET_DOWN, refusal


def test_bytes_of_another_project_are_not_there(house: House) -> None:
    """A digest that is known is no key to what it stands for."""
    for digest in (house.digest, "1" * 64):
        name = f"{P}/artifacts/{digest}"
        for rpc, request in (
            ("artifact.ArtifactService/GetArtifact", artifacts.GetArtifactRequest(name=name)),
            ("artifact.ArtifactService/ListFiles", artifacts.ListFilesRequest(artifact=name)),
        ):
            refusal = _ask(house, rpc, request)
            assert refusal is not None
            assert refusal.verdict == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        version = version_pb2.Version(artifact=name)
        create = models.CreateVersionRequest(parent=MODEL, version=version)
        refusal = _ask(house, "metadata.ModelService/CreateVersion", create)
        assert refusal is not None
        assert refusal.verdict == (grpc.StatusCode.FAILED_PRECONDITION, "BYTES_MISSING")
