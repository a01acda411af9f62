"""The deployer: `python -m services.deployer` runs it in a process of its own."""

from __future__ import annotations

from services.common.service import run_process
from services.deployer.settings import PREFIX
from services.deployer.wiring import compose


def main() -> None:
    """Run the service in its own process."""
    run_process("deployer", [compose], PREFIX)


if __name__ == "__main__":
    main()
