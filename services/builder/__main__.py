"""The builder: `python -m services.builder` runs it in a process of its own."""

from __future__ import annotations

from services.builder.settings import PREFIX
from services.builder.wiring import compose
from services.common.service import run_process


def main() -> None:
    """Run the service in its own process."""
    run_process("builder", [compose], PREFIX)


if __name__ == "__main__":
    main()
