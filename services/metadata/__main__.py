"""The metadata service: `python -m services.metadata` runs it in a process of its own."""

from __future__ import annotations

import uvloop

from services.common.server import ServerSettings
from services.common.service import SuiteSettings, run
from services.common.settings import load_or_exit
from services.metadata.settings import PREFIX
from services.metadata.wiring import compose


def main() -> None:
    """Run the service in its own process."""
    server = load_or_exit(ServerSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run("metadata", [compose], server, suite))


if __name__ == "__main__":
    main()
