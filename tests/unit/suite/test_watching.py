"""What the supervisor of the embedded suite makes of a process that does not serve any more."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.suite.health import until_not_serving
from services.suite.resting import Rests


async def test_a_process_that_failed_before_it_was_seen_to_serve_is_noticed() -> None:
    servicer, server = health.aio.HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await asyncio.wait_for(until_not_serving(f"127.0.0.1:{port}"), 60)
    await server.stop(0)


def test_a_disk_that_stays_bad_is_tried_ever_less_often() -> None:
    rests = Rests()
    assert [rests.after(5) for _ in range(6)] == [0, 60, 120, 240, 480, 600]
    assert rests.after(5) == 600
    assert [rests.after(served) for served in (3_600, 5, 5)] == [0, 60, 120]
