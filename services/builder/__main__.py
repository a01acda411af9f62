"""The builder's composition root: `python -m services.builder`."""

from __future__ import annotations

import uvloop

from services.builder.settings import PREFIX, BuilderSettings
from services.builder.wiring import compose
from services.common.server import ServerSettings
from services.common.service import SuiteSettings, run
from services.common.settings import load_or_exit


def main() -> None:
    """Run the service in its own process."""
    settings = load_or_exit(BuilderSettings, PREFIX)
    server = load_or_exit(ServerSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run("builder", [lambda chassis: compose(chassis, settings)], server, suite))


if __name__ == "__main__":
    main()
