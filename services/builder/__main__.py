"""The builder: `python -m services.builder` runs it in a process of its own."""

from __future__ import annotations

import uvloop

from services.builder.settings import PREFIX
from services.builder.wiring import compose
from services.common.server import ServerSettings
from services.common.service import SuiteSettings, run
from services.common.settings import load_or_exit


def main() -> None:
    """Run the service in its own process."""
    server = load_or_exit(ServerSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run("builder", [compose], server, suite))


if __name__ == "__main__":
    main()
