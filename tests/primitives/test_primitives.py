"""Services run nothing that they were sent, start what they are known to, and write where they may.

`tests/unit/test_no_execution.py` reads our own code; this looks on, libraries included, while
suites run against real services.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.primitives.known import unknown
from tests.primitives.watched import Record, run_watched

ROOT = Path(__file__).resolve().parents[2]
SUITES = "tests/contract tests/rpc"
FEWEST = 100


def test_what_a_service_did_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "code = compile('''\n"
        "import os, pickle, socket, subprocess\n"
        "def handle():\n"
        "    eval('1 + 1')\n"
        "    pickle.loads(pickle.dumps(os.getcwd))\n"
        "    subprocess.run('true', shell=True)\n"
        f"    open({str(ROOT / 'README.md')!r}, 'r+').close()\n"
        "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 1))\n"
        "handle()\n"
        f"''', {str(ROOT / 'services/bad.py')!r}, 'exec')\n"
        "exec(code)\n"
    )
    assert run_watched([str(bad)], tmp_path / "seen", cwd=tmp_path).returncode == 0
    found = unknown(Record.read(tmp_path / "seen").deeds)
    assert {(deed.event, deed.what) for deed in found} == {
        ("exec", ""),
        ("compile", "<string>"),
        ("pickle.find_class", "posix.getcwd"),
        ("subprocess.Popen", "sh"),
        ("open", "README.md"),
        ("socket.connect", "192.0.2.1"),
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_services_do_nothing_that_is_not_known(tmp_path: Path) -> None:
    suites = os.environ.get("MODELYARD_WATCHED_SUITES", SUITES).split()
    done = run_watched(["-m", "pytest", "-q", *suites], tmp_path / "seen", cwd=ROOT)
    record = Record.read(tmp_path / "seen")
    found = unknown(record.deeds)
    print(f"{dict(record.processes)} processes, {len(record.deeds)} deeds, {len(found)} unknown")
    assert found == []
    assert len(record.deeds) >= FEWEST
    # All were run: a test that fails does so in its own suite, where it is to be seen.
    assert done.returncode in (0, 1)
