"""Comparisons: runs, versions and builds side by side, with the true difference of their code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import grpc
from modelyard.artifact.v1 import artifact_service_pb2_grpc
from modelyard.metadata.v1 import comparison_service_pb2 as pb
from modelyard.metadata.v1 import dataset_pb2, model_pb2, run_pb2
from modelyard.metadata.v1 import dataset_service_pb2 as datasets_pb
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from tests.contract.artifact.yard import Content, Yard
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, artifacts_running

BUILD = f"{PROJECT}/builds/b-1"
UP, DOWN = model_pb2.METRIC_GOAL_MAXIMIZE, model_pb2.METRIC_GOAL_MINIMIZE


async def compare(desk: Desk, *names: str, without_code: bool = False) -> pb.CompareResponse:
    request = pb.CompareRequest(parent=PROJECT, names=names, without_code=without_code)
    answer: pb.CompareResponse = await desk.call(desk.comparisons.Compare, request)
    return answer


async def new_run(desk: Desk, *, build: str = "", title: str = "", **batch: Any) -> str:
    """Start a run and log what is given."""
    request = runs_pb.CreateRunRequest(
        parent=MODEL, run=run_pb2.Run(build=build, display_name=title)
    )
    run: str = (await desk.call(desk.runs.CreateRun, request)).run.name
    await desk.ingest(runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1, **batch))
    return run


def column(key: str, value: float) -> run_pb2.MetricColumn:
    return run_pb2.MetricColumn(key=key, steps=[0], times_us=[1], values=[value])


async def push(desk: Desk, **files: bytes) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{desk.house.artifact_port}") as channel:
        stub: Any = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        yard = Yard(stub, "default", token=desk.credential)
        tree = {path.replace("__", "/"): Content(data) for path, data in files.items()}
        return (await yard.push({f"{path}.py": data for path, data in tree.items()})).name


async def test_params_and_metrics_are_aligned(admin: Desk, artifact: str) -> None:
    model = model_pb2.Model(metric_goals={"f1": UP, "loss": DOWN})
    create = models_pb.CreateModelRequest(parent=PROJECT, model_id="churn", model=model)
    await admin.call(admin.models.CreateModel, create)
    names = []
    for f1, loss, depth in ((0.5, 3.0, 6), (math.nan, 1.0, 6), (0.75, math.nan, 8)):
        batch = runs_pb.IngestRunDataRequest()
        batch.params["depth"].int_value = depth
        batch.params["kind"].string_value = "tree"
        if depth == 8:
            batch.params["late"].bool_value = False
        metrics = [column("f1", f1), column("loss", loss), column("free", f1)]
        run = await new_run(admin, params=batch.params, metrics=metrics)
        names.append((await admin.new_version(artifact, run=run)).name)
    answer = await compare(admin, *names)
    assert [item.name for item in answer.items] == names
    assert {row.key: row.differs for row in answer.params} == {
        "depth": True,
        "kind": False,
        "late": True,
    }
    assert [value.int_value for value in answer.params[0].values] == [6, 6, 8]
    assert [value.WhichOneof("kind") for value in answer.params[2].values] == [
        None,
        None,
        "bool_value",
    ]
    rows = {row.key: row for row in answer.metrics}
    assert [cell.best for cell in rows["f1"].cells] == [False, False, True]
    assert [cell.best for cell in rows["loss"].cells] == [False, True, False]
    assert [cell.best for cell in rows["free"].cells] == [False, False, False]
    assert (rows["f1"].goal, rows["loss"].goal, rows["free"].goal) == (UP, DOWN, 0)
    assert rows["f1"].cells[2].delta == 0.25
    assert math.isnan(rows["f1"].cells[1].delta)


async def test_runs_versions_and_builds_mix(admin: Desk, artifact: str) -> None:
    plain = await new_run(admin, title="by hand", metrics=[column("f1", 0.5)])
    first = await new_run(admin, build=BUILD, metrics=[column("f1", 0.25)])
    built = await new_run(admin, build=BUILD, metrics=[column("f1", 0.75)])
    items = (await compare(admin, plain, BUILD)).items
    assert [(item.title, item.run, item.version) for item in items] == [
        ("by hand", plain, ""),
        ("", built, ""),
    ]
    version = await admin.new_version(artifact, run=first, build=BUILD, label="1.0")
    answer = await compare(admin, plain, version.name, BUILD, first)
    assert [item.name for item in answer.items] == [plain, version.name, BUILD, first]
    assert [item.version for item in answer.items] == ["", *[version.name] * 3]
    assert [item.run for item in answer.items] == [plain, *[first] * 3]
    assert [item.build for item in answer.items] == ["", *[BUILD] * 3]
    assert [item.title for item in answer.items] == ["by hand", "1.0", "1.0", ""]
    assert [cell.value for cell in answer.metrics[0].cells] == [0.5, 0.25, 0.25, 0.25]
    assert {item.creator for item in answer.items} == {"user:admin"}
    assert all(item.create_time.seconds for item in answer.items)


async def test_environment_packages_and_data(admin: Desk) -> None:
    names = []
    for version in (1, 2):
        request = datasets_pb.CreateDatasetVersionRequest(
            parent=f"{PROJECT}/datasets/prices",
            dataset_version=dataset_pb2.DatasetVersion(
                digest=f"{version:064x}",
                schema=[dataset_pb2.Column(name="x", type="int64" if version == 1 else "text")],
            ),
        )
        created = await admin.call(admin.datasets.CreateDatasetVersion, request)
        names.append(created.dataset_version.name)
    package = run_pb2.Package
    one = run_pb2.RuntimeEnvironment(
        python_version="3.11.7",
        cpu_count=4,
        packages=[package(name="numpy", version="1"), package(name="same", version="1")],
    )
    two = run_pb2.RuntimeEnvironment(
        python_version="3.11.7",
        cpu_count=4,
        gpus=["L4", "L4"],
        packages=[package(name="same", version="1"), package(name="torch", version="2")],
    )
    uses = [[run_pb2.DatasetUse(role="train", dataset_version=name)] for name in names]
    runs = [
        await new_run(admin, environment=one, image="i@sha256:1", datasets=uses[0]),
        await new_run(admin, environment=two, datasets=uses[1]),
        await new_run(admin),
    ]
    answer = await compare(admin, *runs)
    facts = {row.key: (list(row.values), row.differs) for row in answer.environment}
    assert facts == {
        "python_version": (["3.11.7", "3.11.7", ""], False),
        "cpu_count": (["4", "4", ""], False),
        "gpus": (["", "L4, L4", ""], True),
        "image": (["i@sha256:1", "", ""], True),
    }
    packages = [(row.name, list(row.versions)) for row in answer.packages]
    assert packages == [("numpy", ["1", "", ""]), ("torch", ["", "2", ""])]
    (data,) = answer.datasets
    assert (data.role, data.differs) == ("train", True)
    assert [list(found.names) for found in data.dataset_versions] == [[names[0]], [names[1]], []]
    (difference,) = data.differences
    assert (difference.base, difference.other) == (names[0], names[1])
    (change,) = difference.schema_changes
    assert (change.column, change.old_type, change.new_type) == ("x", "int64", "text")


async def test_snapshots_give_the_true_difference(
    admin: Desk, artifact: str, tmp_path: Path
) -> None:
    snapshots = [
        await push(admin, train=b"a = 1\nb = 2\n", pkg__data=b"\0\1", old=b"moved\n"),
        await push(admin, train=b"a = 1\nb = 3\n", pkg__data=b"\0\2", new=b"moved\n", more=b"x"),
        await push(admin, train=b"a = 1\nb = 2\n", pkg__data=b"\0\1", big=b"y" * (512 * 1024 + 1)),
    ]
    runs = [
        await new_run(admin, code=run_pb2.CodeSource(snapshot=name, diff="x\n"))
        for name in (*snapshots, snapshots[0])
    ]
    code = (await compare(admin, *runs)).code
    assert [source.snapshot for source in code.sources] == [*snapshots, snapshots[0]]
    assert not any(source.diff for source in code.sources)
    assert code.differences[0].unified_diff == (
        "diff --git a/more.py b/more.py\nnew file mode 100644\n"
        "--- /dev/null\n+++ b/more.py\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
        "diff --git a/old.py b/new.py\nrename from old.py\nrename to new.py\n"
        "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n"
        "@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n+b = 3\n"
    )
    assert code.differences[0].note == "left out, binary: pkg/data.py"
    assert code.differences[1].note == "left out, too large: big.py"
    assert "deleted file mode 100644\n--- a/old.py\n" in code.differences[1].unified_diff
    assert code.differences[2] == type(code.differences[2])()
    assert not (await compare(admin, *runs, without_code=True)).code.differences


async def test_bundles_stand_in_for_snapshots(admin: Desk, artifact: str) -> None:
    bundles = [await push(admin, code__model=text) for text in (b"one\n", b"two\n")]
    versions = [(await admin.new_version(bundle)).name for bundle in bundles]
    (difference,) = (await compare(admin, *versions)).code.differences
    assert difference.unified_diff.endswith("+++ b/model.py\n@@ -1 +1 @@\n-one\n+two\n")
    assert "bundles" in difference.note
    bare = (await admin.new_version(artifact)).name
    (difference,) = (await compare(admin, versions[0], bare)).code.differences
    assert "nothing is known" in difference.note


async def test_commits_and_work_trees(admin: Desk) -> None:
    diffs = [
        "",
        "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+b\n",
        "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+c\n",
    ]
    runs = [
        await new_run(admin, code=run_pb2.CodeSource(commit="c0", diff=diff, dirty=bool(diff)))
        for diff in diffs
    ]
    other = await new_run(admin, code=run_pb2.CodeSource(commit="c1"))
    found = (await compare(admin, runs[0], runs[1], other)).code.differences
    assert found[0].unified_diff == diffs[1]
    assert found[1].unified_diff == ""
    assert "git diff c0 c1" in found[1].note
    found = (await compare(admin, runs[1], runs[0], runs[2], runs[1])).code.differences
    assert "-b\n+a\n" in found[0].unified_diff
    assert "-b\n+c\n" in found[1].unified_diff
    assert found[2].unified_diff == found[2].note == ""


async def test_an_artifact_service_that_is_away_is_a_note(admin: Desk, tmp_path: Path) -> None:
    async with artifacts_running(admin.house, tmp_path / "artifact"):
        snapshots = [await push(admin, a=b"1"), await push(admin, a=b"2")]
    runs = [await new_run(admin, code=run_pb2.CodeSource(snapshot=s)) for s in snapshots]
    answer = await compare(admin, *runs)
    assert "SERVICE_UNAVAILABLE" in answer.code.differences[0].note
    assert len(answer.items) == 2


async def test_what_cannot_be_compared(admin: Desk) -> None:
    run = await admin.new_run()
    odd = [
        ([run], "INVALID_FIELD"),
        ([run] * 101, "INVALID_FIELD"),
        ([run, "projects/other/models/m/versions/1"], "INVALID_FIELD"),
        ([run, MODEL], "INVALID_NAME"),
        ([run, f"{MODEL}/versions/9"], "RESOURCE_NOT_FOUND"),
        ([run, f"{MODEL}/runs/none"], "RESOURCE_NOT_FOUND"),
        ([run, f"{PROJECT}/builds/b-none"], "RESOURCE_NOT_FOUND"),
    ]
    for names, reason in odd:
        request = pb.CompareRequest(parent=PROJECT, names=names)
        assert (await admin.refused(admin.comparisons.Compare, request))[1] == reason
    assert len((await compare(admin, *[run] * 100)).items) == 100


async def test_a_large_answer_is_refused_and_large_diffs_are_cut(admin: Desk) -> None:
    big = "".join(f"+{number:060d}\n" for number in range(17_000))
    diff = f"--- /dev/null\n+++ b/m.py\n@@ -0,0 +1,17000 @@\n{big}"
    codes = [run_pb2.CodeSource(commit="c0", diff=text) for text in ("", diff[: 1024 * 1024])]
    runs = [await new_run(admin, code=code) for code in codes]
    found = (await compare(admin, *runs, *[runs[1]] * 2)).code.differences
    assert [one.cut for one in found] == [False, False, True]
    assert sum(len(one.unified_diff) for one in found) <= 2 * 1024 * 1024
    batch = runs_pb.IngestRunDataRequest()
    for number in range(45):
        batch.params[f"p{number}"].string_value = "x" * 65_536
    long = await new_run(admin, params=batch.params)
    request = pb.CompareRequest(parent=PROJECT, names=[long, long])
    assert (await admin.refused(admin.comparisons.Compare, request))[1] == "LIMIT_EXCEEDED"
