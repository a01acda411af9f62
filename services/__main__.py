"""The embedded suite's one service process: the four services on one gRPC port."""

from __future__ import annotations

from services.artifact.wiring import compose as compose_artifact
from services.builder.wiring import compose as compose_builder
from services.common.service import run_process
from services.deployer.wiring import compose as compose_deployer
from services.metadata.wiring import compose as compose_metadata

COMPOSES = (compose_metadata, compose_artifact, compose_builder, compose_deployer)


def main() -> None:
    """Serve all four services until SIGTERM."""
    run_process("suite", COMPOSES, "MODELYARD_")


if __name__ == "__main__":
    main()
