"""The metadata service: `python -m services.metadata` runs it in a process of its own."""

from __future__ import annotations

from services.common.service import run_process
from services.metadata.settings import PREFIX
from services.metadata.wiring import compose


def main() -> None:
    """Run the service in its own process."""
    run_process("metadata", [compose], PREFIX)


if __name__ == "__main__":
    main()
