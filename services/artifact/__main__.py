"""The artifact service: `python -m services.artifact` runs it in a process of its own."""

from __future__ import annotations

from services.artifact.settings import PREFIX
from services.artifact.wiring import compose
from services.common.service import run_process


def main() -> None:
    """Run the service in its own process."""
    run_process("artifact", [compose], PREFIX)


if __name__ == "__main__":
    main()
