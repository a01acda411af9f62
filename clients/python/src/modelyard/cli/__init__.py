"""The `modelyard` command line.

Exit status: 0 done, 1 it failed (the reason is on standard error), 2 the command
was not understood. Tables are for people; `--output json` is for programs.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

PLUGINS = "modelyard.commands"


def main() -> None:
    """Run the command line, with the commands that other distributions add to it."""
    try:
        import rich  # noqa: F401, PLC0415
        import typer  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        sys.exit("modelyard: the command line needs its extra: pip install 'modelyard[cli]'")
    from modelyard.cli.app import make_app, run  # noqa: PLC0415

    app = make_app()
    for plugin in entry_points(group=PLUGINS):
        plugin.load()(app)
    sys.exit(run(app))
