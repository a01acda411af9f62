"""What two hundred deployments cost that have nothing to do: how much they add to a core's share.

The services have their own clocks to look at, deployments or not, so both are measured.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
from modelyard.deployer.v1 import (
    assignment_pb2,
    controller_service_pb2,
    controller_service_pb2_grpc,
    deployment_pb2,
)

from benchmarks.deployer.setting import WAIT_SECONDS, Setting
from benchmarks.runner import Measurement

COUNT = 200
SECONDS = 20.0
ELSEWHERE = "elsewhere"
CONTROLLER = "benchmark"


def measure(setting: Setting) -> Measurement:
    """Deploy two hundred models to a controller that says yes at once; then look at the clock."""
    before = _share(setting)
    with setting.client() as client, _controller(setting):
        client.environments.create(ELSEWHERE, external=True)
        artifact = client.artifacts.push(setting.folder / "clf")
        for number in range(COUNT):
            version = client.versions.create(f"idle-{number}", artifact.name)
            client.deployments.deploy(version.name, environment=ELSEWHERE)
        deadline = time.monotonic() + WAIT_SECONDS
        live = deployment_pb2.DEPLOYMENT_STATE_LIVE
        while any(d.state != live for d in client.deployments.list(environment=ELSEWHERE)):
            if time.monotonic() > deadline:
                raise RuntimeError("not all of them went live")
            time.sleep(0.5)
        time.sleep(2)  # whatever a change leaves to do is done by now
        after = _share(setting)
    return Measurement("200 deployments with nothing to do", after - before, [after], [before])


def _share(setting: Setting) -> float:
    """Return the services' share of a core, in percent."""
    services = _services(setting)
    before, begun = _cpu(services), time.monotonic()
    time.sleep(SECONDS)
    return 100 * (_cpu(services) - before) / (time.monotonic() - begun)


@contextlib.contextmanager
def _controller(setting: Setting) -> Iterator[None]:
    """Carry out whatever is assigned elsewhere, at once."""
    token = setting.layout.admin_token.with_name("agent.token").read_text().strip()
    stop = threading.Event()
    thread = threading.Thread(target=_obey, args=(setting.layout.address, token, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _obey(address: str, token: str, stop: threading.Event) -> None:
    metadata = [("authorization", f"Bearer {token}")]
    request = controller_service_pb2.WatchAssignmentsRequest(
        environment=f"projects/default/environments/{ELSEWHERE}", controller=CONTROLLER
    )
    with grpc.insecure_channel(address) as channel:
        stub: Any = controller_service_pb2_grpc.ControllerServiceStub(channel)
        while not stop.is_set():
            watch = stub.WatchAssignments(request, metadata=metadata)
            threading.Thread(target=_cancel_when, args=(stop, watch), daemon=True).start()
            with contextlib.suppress(grpc.RpcError):
                for message in watch:
                    request.cursor = message.cursor
                    for assignment in message.assignments:
                        stub.ReportStatus(_report(assignment), metadata=metadata)
            stop.wait(0.2)


def _cancel_when(stop: threading.Event, watch: Any) -> None:
    stop.wait()
    watch.cancel()


def _report(assignment: assignment_pb2.Assignment) -> controller_service_pb2.ReportStatusRequest:
    status = assignment_pb2.AssignmentStatus(
        deployment=assignment.deployment, generation=assignment.generation, weights_applied=True
    )
    for variant in assignment.variants:
        status.variants.add(revision=variant.revision, state=deployment_pb2.VARIANT_STATE_READY)
    return controller_service_pb2.ReportStatusRequest(controller=CONTROLLER, status=status)


def _services(setting: Setting) -> psutil.Process:
    """Find the process of the four services."""
    for child in psutil.Process(setting.pid).children(recursive=True):
        if child.cmdline()[-2:] == ["-m", "services"]:
            return child
    raise RuntimeError("the services do not run")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
