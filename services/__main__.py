"""The embedded suite's one service process: the four services on one gRPC port."""

from __future__ import annotations

import uvloop

from services.artifact.__main__ import compose as compose_artifact
from services.builder.wiring import compose as compose_builder
from services.common.server import ServerSettings
from services.common.service import SuiteSettings, run
from services.common.settings import load_or_exit
from services.deployer.wiring import compose as compose_deployer
from services.metadata.wiring import compose as compose_metadata

COMPOSES = (compose_metadata, compose_artifact, compose_builder, compose_deployer)


def main() -> None:
    """Serve all four services until SIGTERM."""
    server = load_or_exit(ServerSettings, "MODELYARD_")
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run("suite", COMPOSES, server, suite))


if __name__ == "__main__":
    main()
