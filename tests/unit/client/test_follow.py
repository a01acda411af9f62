from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import modelyard
import pytest
from modelyard import AsyncClient, Client
from modelyard.builder.v1 import (
    build_event_pb2,
    build_pb2,
    build_service_pb2,
    build_service_pb2_grpc,
)
from modelyard.deployer.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
)

Connect = Callable[[Callable[[grpc.Server], None]], Client]
COUNT = 40


class Builds(build_service_pb2_grpc.BuildServiceServicer):
    """Streams COUNT events, three to a message, and drops every second connection midway."""

    def __init__(self, *, endless: bool = False) -> None:
        self.cursors: list[str] = []
        self.endless = endless
        self.ended = False

    def StreamBuildEvents(
        self, request: build_service_pb2.StreamBuildEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[build_service_pb2.StreamBuildEventsResponse]:
        self.cursors.append(request.cursor)
        if request.build.endswith("/unknown"):
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such build")
        start = int(request.cursor or 0)
        for sent, at in enumerate(range(start, COUNT, 3)):
            if sent == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            events = [event(number) for number in range(at, min(at + 3, COUNT))]
            yield build_service_pb2.StreamBuildEventsResponse(
                events=events, cursor=str(min(at + 3, COUNT))
            )
            yield build_service_pb2.StreamBuildEventsResponse(cursor=str(min(at + 3, COUNT)))
        while self.endless and context.is_active():
            yield build_service_pb2.StreamBuildEventsResponse(cursor=str(COUNT))
        self.ended = True

    def GetBuild(
        self, request: build_service_pb2.GetBuildRequest, context: grpc.ServicerContext
    ) -> build_service_pb2.GetBuildResponse:
        state = build_pb2.BUILD_STATE_SUCCEEDED if self.ended else build_pb2.BUILD_STATE_RUNNING
        return build_service_pb2.GetBuildResponse(
            build=build_pb2.Build(name=request.name, state=state)
        )


def make_builds(*, endless: bool = False) -> Builds:
    return Builds(endless=endless)


def event(number: int) -> build_event_pb2.BuildEvent:
    return build_event_pb2.BuildEvent(log=build_event_pb2.LogLine(text=str(number)))


def serve_builds(connect: Connect, builds: Builds) -> Client:
    return connect(
        lambda server: build_service_pb2_grpc.add_BuildServiceServicer_to_server(builds, server)
    )


def test_following_neither_repeats_nor_skips(connect: Connect) -> None:
    builds = make_builds()
    client = serve_builds(connect, builds)
    lines = [event.log.text for event in client.builds.follow("b1")]
    assert lines == [str(number) for number in range(COUNT)]
    assert builds.cursors == ["", *(str(at) for at in range(6, COUNT, 6))]


async def test_the_async_twin_follows_the_same(connect: Connect) -> None:
    client = serve_builds(connect, make_builds())
    async with AsyncClient(client.settings.server, token="t", project="shop") as twin:
        lines = [event.log.text async for event in twin.builds.follow("b1")]
        ended = await twin.builds.wait("b1")
    assert lines == [str(number) for number in range(COUNT)]
    assert ended.state == build_pb2.BUILD_STATE_SUCCEEDED


def test_following_goes_on_from_a_cursor(connect: Connect) -> None:
    client = serve_builds(connect, make_builds())
    messages = list(client.builds.batches("b1", cursor="36"))
    assert [event.log.text for message in messages for event in message.events] == [
        str(number) for number in range(36, COUNT)
    ]
    assert messages[-1].cursor == str(COUNT)


def test_waiting_returns_the_ended_build(connect: Connect) -> None:
    client = serve_builds(connect, make_builds())
    assert client.builds.wait("b1").state == build_pb2.BUILD_STATE_SUCCEEDED


def test_waiting_ends_in_time(connect: Connect) -> None:
    client = serve_builds(connect, make_builds(endless=True))
    with pytest.raises(modelyard.DeadlineExceededError):
        client.builds.wait("b1", timeout=1.5)


def test_an_error_that_will_not_pass_is_raised_at_once(connect: Connect) -> None:
    builds = make_builds()
    client = serve_builds(connect, builds)
    with pytest.raises(modelyard.NotFoundError):
        list(client.builds.follow("unknown"))
    assert len(builds.cursors) == 1


def test_a_follower_that_stops_ends_the_stream(connect: Connect) -> None:
    builds = make_builds(endless=True)
    client = serve_builds(connect, builds)
    follower = client.builds.follow("b1", cursor=str(COUNT - 1))
    assert next(follower).log.text == str(COUNT - 1)
    follower.close()  # type: ignore[attr-defined]
    assert client.builds.get("b1").name == "projects/shop/builds/b1"


class Deployments(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Rolls out in three messages, over a stream that ends without reason after the first."""

    def StreamDeploymentEvents(
        self,
        request: deployment_service_pb2.StreamDeploymentEventsRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[deployment_service_pb2.StreamDeploymentEventsResponse]:
        rolling = deployment_pb2.DEPLOYMENT_STATE_ROLLING_OUT
        if not request.cursor:
            yield self._message("1", "VARIANT_STARTING", rolling)
            return
        yield deployment_service_pb2.StreamDeploymentEventsResponse(cursor="1")
        yield self._message("2", "TRAFFIC_SHIFTED", rolling)
        yield self._message("3", "LIVE", deployment_pb2.DEPLOYMENT_STATE_LIVE)
        context.abort(grpc.StatusCode.INTERNAL, "nobody should listen any more")

    def GetDeployment(
        self,
        request: deployment_service_pb2.GetDeploymentRequest,
        context: grpc.ServicerContext,
    ) -> deployment_service_pb2.GetDeploymentResponse:
        return deployment_service_pb2.GetDeploymentResponse(
            deployment=deployment_pb2.Deployment(name=request.name)
        )

    def _message(
        self, cursor: str, kind: str, state: deployment_pb2.DeploymentState.ValueType
    ) -> deployment_service_pb2.StreamDeploymentEventsResponse:
        return deployment_service_pb2.StreamDeploymentEventsResponse(
            events=[deployment_service_pb2.DeploymentEvent(type=kind)],
            deployment=deployment_pb2.Deployment(state=state),
            cursor=cursor,
        )


def test_a_deployment_is_followed_until_it_settles(connect: Connect) -> None:
    client = connect(
        lambda server: deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(
            Deployments(),
            server,
        )
    )
    followed = client.deployments.follow("churn", environment="production")
    assert [event.type for event in followed] == ["VARIANT_STARTING", "TRAFFIC_SHIFTED", "LIVE"]
    name = "projects/shop/environments/production/deployments/churn"
    assert client.deployments.wait("churn", environment="production").name == name
