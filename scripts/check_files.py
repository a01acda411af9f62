"""Check what is committed: no package registry's host, a lock that is true.

Run as `uv run --no-project python scripts/check_files.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Written in two parts, so that this file does not name them either.
HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "deb.debian" + ".org",
]
LOCK = ROOT / "requirements.lock"
EXPORT = (
    "uv export --quiet --no-emit-workspace --no-header --no-default-groups"
    " --format requirements-txt"
)


def named_hosts() -> list[str]:
    """Name the committed files that name a package registry's host."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    problems = []
    for name in filter(None, files.stdout.decode().split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        problems += [f"{name} names {host}" for host in HOSTS if host.encode() in content]
        if name == "uv.lock":
            problems.append("uv.lock is committed")
    return problems


def stale_lock() -> list[str]:
    """Say whether requirements.lock is not what the dependencies resolve to."""
    fresh = subprocess.run(EXPORT.split(), cwd=ROOT, capture_output=True, check=True, text=True)
    same = fresh.stdout == LOCK.read_text()
    return [] if same else [f"requirements.lock is stale; run: {EXPORT} > requirements.lock"]


def main() -> int:
    """Check everything; print what is wrong."""
    problems = named_hosts() + stale_lock()
    print("\n".join(problems) or "committed files are in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
