"""Run a suite in a folder until SIGTERM, and say there how to reach it.

Run as `python -m scripts.run_suite FOLDER`; `FOLDER/environment` appears when it is
ready, to be sourced by a shell.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from services.suite.children import Layout
from services.suite.start import free_port, start_suite


def main() -> int:
    """Start a suite on free ports and stay until told to stop."""
    folder = Path(sys.argv[1])
    layout = Layout(folder / "data", free_port(), free_port())
    suite = start_suite(layout, environment={})
    signal.signal(signal.SIGTERM, lambda *_: suite.terminate())
    (folder / "environment").write_text(
        f"export MODELYARD_SERVER={layout.address} MODELYARD_TOKEN_FILE={layout.admin_token}\n"
    )
    return suite.wait()


if __name__ == "__main__":
    sys.exit(main())
