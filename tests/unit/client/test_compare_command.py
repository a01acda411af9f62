"""`modelyard compare`: JSON, Markdown, a page of its own; nothing stored gets to be markup."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import grpc
import pytest
from modelyard.cli import app as cli
from modelyard.cli.comparing import charts, diffs
from modelyard.cli.comparing.local_code import fill_in
from modelyard.cli.comparing.view import Code
from modelyard.metadata.v1 import (
    comparison_service_pb2,
    comparison_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
)

EVIL = "</td><script>alert(1)</script>\"'><img src=x onerror=alert(2)> | {{7*7}} `x` @you \x1b[31m"
MODEL = "projects/shop/models/churn"
NAMES = (f"{MODEL}/versions/3", f"{MODEL}/runs/r-1")
DIFF = (
    "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,3 @@\n same\n-old </script>\n"
    f"+new ````\n+--- {EVIL}\n"
)

Comparison = comparison_service_pb2.CompareResponse
Run = Callable[..., str]


def answer(text: str = EVIL) -> Comparison:
    found = Comparison()
    for name in NAMES:
        found.items.add(name=name, run=f"{MODEL}/runs/r-1", title=text, creator=text)
    for row in (found.params.add(key=text, differs=True), found.params.add(key="depth")):
        row.values.add(string_value=text)
        row.values.add()
    metric = found.metrics.add(key="loss", goal=2)
    metric.cells.add(value=0.5)
    metric.cells.add(value=0.25, delta=-0.25, best=True)
    strange = found.metrics.add(key=text)
    strange.cells.add(value=math.nan)
    strange.cells.add()
    found.environment.add(key="cpu", values=[text, ""], differs=True)
    found.packages.add(name="numpy", versions=["1.0", "2.0"])
    data = found.datasets.add(role="train", differs=True)
    names = [f"projects/shop/datasets/prices/versions/{number}" for number in (1, 2)]
    for name in names:
        data.dataset_versions.add(names=[name])
    difference = data.differences.add(base=names[0], other=names[1])
    difference.schema_changes.add(column=text, kind=1, new_type="int64")
    found.code.sources.add(commit="a" * 40, branch=text)
    found.code.sources.add(commit="b" * 40, dirty=True)
    found.code.differences.add(unified_diff=DIFF, note=text, cut=True)
    return found


class Comparisons(comparison_service_pb2_grpc.ComparisonServiceServicer):
    def __init__(self, found: Comparison) -> None:
        self.found = found
        self.requests: list[comparison_service_pb2.CompareRequest] = []

    def Compare(
        self, request: comparison_service_pb2.CompareRequest, context: grpc.ServicerContext
    ) -> Comparison:
        self.requests.append(request)
        return self.found


class Runs(run_service_pb2_grpc.RunServiceServicer):
    def SampleMetricPoints(
        self, request: run_service_pb2.SampleMetricPointsRequest, context: grpc.ServicerContext
    ) -> run_service_pb2.SampleMetricPointsResponse:
        samples = run_service_pb2.SampleMetricPointsResponse()
        for key in ("loss", EVIL):
            column = run_pb2.MetricColumn(
                key=key, steps=[0, 1, 2, 3], times_us=[0] * 4, values=[1, 0.5, math.nan, 0.25]
            )
            samples.samples.add(points=column, point_count=4)
        return samples


@pytest.fixture
def comparisons() -> Comparisons:
    return Comparisons(answer())


@pytest.fixture
def modelyard(
    comparisons: Comparisons,
    serve: Callable[[Callable[[grpc.Server], None]], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Run the command line against a server that answers a comparison."""

    def add(server: grpc.Server) -> None:
        comparison_service_pb2_grpc.add_ComparisonServiceServicer_to_server(comparisons, server)
        run_service_pb2_grpc.add_RunServiceServicer_to_server(Runs(), server)

    monkeypatch.setenv("MODELYARD_SERVER", serve(add))
    monkeypatch.setenv("MODELYARD_TOKEN", "secret")
    monkeypatch.setenv("MODELYARD_PROJECT", "shop")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        assert cli.run(cli.make_app()) == status
        written = capsys.readouterr()
        return written.err if status else written.out

    return run


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str | None]] = {}
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_runs_nothing(modelyard: Run) -> None:
    written = modelyard("compare", "churn/3", "churn/r-1", "--output", "html")
    page = Page(written)
    assert not page.tags & {"script", "img", "link", "iframe", "object", "base", "form", "a"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert not page.attributes.keys() & {"src", "href", "srcset", "action", "style", "background"}
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.attributes["content"]
    assert not re.search(r"url\(|@import|https?:", written)
    assert "\x1b" not in written
    shown = EVIL.replace("\x1b", "\\x1b")
    assert page.text.count(shown) >= 10
    assert f"--- {shown}" in page.text
    assert written.count("<path d=") == 4
    assert written.count("<circle") == 4
    assert "0.25" in page.text
    assert "▼ -0.25" in page.text


def test_markdown_cannot_be_broken_out_of(modelyard: Run, tmp_path: Path) -> None:
    modelyard("compare", "churn/3", "churn/r-1", "--to", "c.md")
    written = (tmp_path / "c.md").read_text()
    prose, fenced, rest = re.split(r"^`{5}(?:diff)?$", written, flags=re.MULTILINE)
    assert "+new ````" in fenced
    for part in (prose, rest):
        assert set(re.findall(r"<[^>]*>?", part)) <= {
            "<details>",
            "</details>",
            "<summary>",
            "</summary>",
        }
        assert "@" not in part
        assert "`" not in part
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4}
    assert "| loss ↓ | 0.5 | **0.25** ★ (▼ -0.25) |" in rows
    assert "| numpy | **1.0** | **2.0** |" in rows


def test_json_is_the_answer(modelyard: Run, comparisons: Comparisons, tmp_path: Path) -> None:
    found = json.loads(modelyard("compare", "churn/3", "builds/b", "-o", "json", "--no-code"))
    assert found["metrics"][0]["cells"][1] == {"value": 0.25, "delta": -0.25, "best": True}
    assert found["metrics"][1]["cells"][0]["value"] == "NaN"
    assert list(comparisons.requests[0].names) == [NAMES[0], "projects/shop/builds/b"]
    assert comparisons.requests[0].without_code
    modelyard("compare", "churn/3", "churn/r-1", "--to", "c.json")
    assert json.loads((tmp_path / "c.json").read_text()) == found


def test_the_terminal_is_not_driven_by_what_is_stored(modelyard: Run) -> None:
    comparison = modelyard("compare", "churn/3", "churn/r-1")
    assert "\x1b" not in comparison
    for words in ("loss ↓", "0.25 ★", "▼ -0.25", "numpy", "prices/2", "+new", "cut", "depth"):
        assert words in comparison


def test_long_differences_are_shortened(modelyard: Run, comparisons: Comparisons) -> None:
    comparisons.found.code.differences[0].unified_diff += "+more\n" * 500
    shown = modelyard("compare", "churn/3", "churn/r-1")
    assert shown.count("+more") < 80
    assert "--to comparison.html" in shown


def test_wrong_use_is_said(modelyard: Run) -> None:
    assert "two things" in modelyard("compare", "churn/3", status=1)
    assert ".html" in modelyard("compare", "churn/3", "churn/4", "--to", "c.pdf", status=1)
    assert "only `compare`" in modelyard("runs", "list", "-o", "html", status=2)


def test_commits_of_the_work_tree_are_compared_there(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for text in ("one\n", "two\n"):
        (tmp_path / "m.py").write_text(text)
        git("add", "-A")
        git("commit", "-qm", text)
        commits.append(git("rev-parse", "HEAD"))
    known = Code("a", "b", "", cut=False, note="n", commits=(commits[0], commits[1]))
    unknown = Code("a", "b", "", cut=False, note="n", commits=(commits[0], "f" * 40))
    option = Code("a", "b", "", cut=False, note="n", commits=(commits[0], "--output=x"))
    filled = fill_in([known, unknown, option], tmp_path)
    assert "-one\n+two\n" in filled[0].diff
    assert filled[1:] == [unknown, option]
    assert fill_in([known], tmp_path.parent / "none") == [known]


@pytest.mark.parametrize(
    ("steps", "values", "path", "dots"),
    [
        ([0, 1, 2], [1.0, 2.0, 3.0], r"M[\d.,]+L[\d.,]+L[\d.,]+", 0),
        ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0], r"M[\d.,]+L[\d.,]+", 1),
        ([5, 5], [1.0, 1.0], r"M[\d.,]+L[\d.,]+", 0),
        ([-(2**63), 2**63 - 1], [-1.7e308, 1.7e308], r"M[\d.,]+L[\d.,]+", 0),
        ([0, 1], [0.0, 5e-324], r"M[\d.,]+L[\d.,]+", 0),
        ([0, 1], [1.79e308, 1.79e308], r"M[\d.,]+L[\d.,]+", 0),
        ([0, 1], [1e-308, 1e-308], r"M[\d.,]+L[\d.,]+", 0),
        ([0, 1, 2], [1.0, math.inf, 2.0], "", 2),
    ],
)
def test_curves(steps: list[int], values: list[float], path: str, dots: int) -> None:
    chart = charts.make_chart("k", {0: (steps, values)}, ["one"])
    assert chart is not None
    (curve,) = chart.curves
    assert re.fullmatch(path, curve.path)
    assert len(curve.dots) == dots
    assert len(chart.y_ticks) < 30
    for tick in chart.x_ticks:
        assert charts.LEFT - 1 <= tick.at <= charts.WIDTH - charts.RIGHT + 1


def test_no_curve_of_single_points() -> None:
    assert charts.make_chart("k", {0: ([1], [1.0])}, ["one"]) is None
    assert charts.make_chart("k", {0: ([1, 2], [math.nan, math.nan])}, ["one"]) is None
    both = charts.make_chart("k", {0: ([1], [1.0]), 11: ([1, 2], [1.0, 3.0])}, ["x"] * 12)
    assert both is not None
    assert [(c.colour, bool(c.dashes), len(c.dots)) for c in both.curves] == [
        (0, False, 1),
        (1, True, 0),
    ]


def test_diffs_are_cut_into_numbered_lines() -> None:
    files, left = diffs.files_of(DIFF + "diff --git a/x b.py b/x b.py\nrename from x\n")
    assert [(f.title, f.added, f.removed) for f in files] == [("m.py", 2, 1), ("x b.py", 0, 0)]
    numbers = [(line.kind, line.old, line.new) for line in files[0].lines[1:]]
    assert numbers == [("", "1", "1"), ("del", "2", ""), ("add", "", "2"), ("add", "", "3")]
    assert left == 0
    assert diffs.files_of("") == ([], 0)
