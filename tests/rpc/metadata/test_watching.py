"""A watcher over kills of its server, and the commands that watch and trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from modelyard import Client

from tests.rpc.metadata.conftest import Command, Services, until, use


def test_a_watcher_over_a_kill_misses_and_repeats_nothing(
    services: Services, client: Client
) -> None:
    cursor, heard = client.changes.cursor(), list[str]()
    last = "projects/default/models/last"

    def follow() -> None:
        with services.client() as watcher:
            for change in watcher.watch(filter="type = MODEL_CREATED", cursor=cursor):
                heard.append(change.name)
                if change.name == last:
                    return

    def write(stretch: int) -> None:
        with services.client() as writer:
            made.extend(writer.models.create(f"k-{stretch}-{n}").name for n in range(20))

    made: list[str] = []
    follower = threading.Thread(target=follow)
    follower.start()
    write(1)
    services.kill()  # with changes still on their way
    services.start()
    write(2)
    made.append(client.models.create("last").name)
    follower.join(30)
    assert heard == made


def test_watch_writes_changes_as_they_come(
    services: Services, client: Client, artifact: str, tmp_path: Path
) -> None:
    cursor, runs = client.changes.cursor(), client.changes.cursor(runs=True)
    client.versions.create("told", artifact, aliases=["production"])
    run = client.runs.create("told")
    own = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
    environment = own | {
        "MODELYARD_SERVER": services.layout.address,
        "MODELYARD_TOKEN": services.token(),
        "MODELYARD_PROJECT": "default",
    }
    written = tmp_path / "written"
    filters = ("watch", "told", "--filter", 'alias = "production"', "--cursor", cursor)
    for arguments in (("-o", "json", *filters), filters):
        with written.open("w") as out:
            command = [str(Path(sys.executable).with_name("modelyard")), *arguments]
            process = subprocess.Popen(command, stdout=out, env=environment)
        try:
            until(lambda: written.read_text().endswith("\n"))  # a pipe, too, is told at once
        finally:
            process.kill()
            process.wait()
        if arguments is filters:
            assert "alias moved  told@production → told/1  user:admin" in written.read_text()
        else:
            assert json.loads(written.read_text())["alias"]["name"].endswith("/production")
    change = next(client.changes.runs("told", filter="type = CREATED", cursor=runs))
    assert change.name == run.name


def test_lineage_is_shown_both_ways(client: Client, command: Command, artifact: str) -> None:
    run = client.runs.create("traced")
    client.versions.create("traced", artifact, run=run, aliases=["production"])
    use(client, "traced/1")
    down = ("led to:", "traced@production", "deployments/traced", "LIVE")
    up = ("came from:", "traced/runs/")
    for arguments, there, absent in (
        ((), (*up, *down), ()),
        (("--upstream",), up, down[:1]),
        (("--downstream",), down, up),
    ):
        shown = command("lineage", "traced/1", *arguments)
        assert all(words in shown for words in there), shown
        assert not any(words in shown for words in absent), shown
    graph = json.loads(command("lineage", "traced@production", "-o", "json"))
    kinds = {node["name"].split("/")[-2] for node in graph["nodes"]}
    assert kinds == {"aliases", "versions", "runs"}
