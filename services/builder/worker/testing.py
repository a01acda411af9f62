"""The test phase: the source's own tests, counted and reported, then the smoke prediction."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

from modelyard.builder.v1 import build_pb2

from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.leavings import read_leaving
from services.builder.worker.work import PhaseFailedError, Work, how_ended
from services.common.environments.lock import EnvironmentFailedError

EXIT_NO_TESTS = 5
MAX_NAMED_TESTS = 20
MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_SCHEMA_BYTES = 1024 * 1024
PYTEST = "pytest"
PYTEST_SETTINGS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")

_FAILED_TEST = re.compile(r"(?:FAILED|ERROR) (\S+)")


async def test(work: Work, _builder: BuilderClient) -> None:
    """Run the source's own tests, then the smoke prediction on the model's example."""
    if work.build.spec.skip_tests:
        work.say("the source's tests are left out, as ordered")
    elif not has_tests(work.source):
        work.say("the source has no tests: neither tests/ nor test_*.py")
    else:
        await _run_tests(work)
    await _smoke(work)


def has_tests(source: Path) -> bool:
    """Say whether a source brings tests of its own."""
    return (source / "tests").is_dir() or any(source.glob("test_*.py"))


def count_tests(report: bytes) -> build_pb2.TestCounts | None:
    """Return what a JUnit report says in numbers; None when it is none."""
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)

    def add(name: str, attributes: dict[str, str]) -> None:
        if name == "testsuite":
            for key in totals:
                totals[key] += int(attributes.get(key, "0"))

    def refuse(*_: object) -> None:
        raise ValueError("a report declares no entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = add, refuse
    try:
        parser.Parse(report, True)
    except (expat.ExpatError, ValueError):
        return None
    failed = totals["failures"] + totals["errors"]
    passed = max(totals["tests"] - failed - totals["skipped"], 0)
    return build_pb2.TestCounts(
        passed_count=passed, failed_count=failed, skipped_count=totals["skipped"]
    )


async def _run_tests(work: Work) -> None:
    if work.environment is None:
        raise AssertionError
    try:
        extra = await work.environments.extend(
            work.environment, work.lock, PYTEST, on_line=work.say
        )
    except EnvironmentFailedError as error:
        message = f"pytest does not go with the requirements: {error}"
        raise PhaseFailedError("TEST_FAILED", message) from error
    lines: list[str] = []
    given, report = work.code_variables, work.folder / "tmp" / "modelyard-tests.xml"
    paths = [str(extra), *filter(None, [given.get("PYTHONPATH")])]
    variables = given | {"PYTHONPATH": ":".join(paths), "MODELYARD_BUNDLE": str(work.bundle)}
    arguments = ("-m", "pytest", "-v", "-rfE", "-p", "no:cacheprovider", *_confined(work.source))
    status = await work.python_heard((*arguments, f"--junitxml={report}"), variables, lines)
    _keep_report(work, report)
    if status == EXIT_NO_TESTS:
        work.say("pytest found no tests in the source")
    elif status != 0:
        named = [match[1] for line in lines if (match := _FAILED_TEST.match(line))]
        message = f"failed: {', '.join(named[:MAX_NAMED_TESTS])}" if named else how_ended(status)
        raise PhaseFailedError("TEST_FAILED", f"the source's tests {message}")
    work.tests_passed = status == 0


def _confined(source: Path) -> tuple[str, ...]:
    """Keep pytest from the settings of a project that the worker's own folder may lie in."""
    own = any((source / name).exists() for name in PYTEST_SETTINGS)
    return ("--rootdir=.", "--confcutdir=.", *(() if own else ("-c", os.devnull)))


def _keep_report(work: Work, path: Path) -> None:
    report = read_leaving(path, max_bytes=MAX_REPORT_BYTES)
    counts = count_tests(report) if report else None
    if report is None or counts is None:
        work.say("pytest left no report")
        return
    work.test_report, work.test_counts = work.mask.raw(report), counts


async def _smoke(work: Work) -> None:
    """Have a fresh process load the bundle and predict its example; keep the schema."""
    path = work.folder / "tmp" / "modelyard-schema.json"
    arguments = ("--bundle", str(work.bundle), "--schema", str(path))
    status = await work.python("-m", "modelyard.building.smoke", *arguments)
    await work.spool.drain()
    if status != 0:
        message = f"the smoke prediction {how_ended(status)}; see the log"
        raise PhaseFailedError("SMOKE_FAILED", message)
    work.schema = _schema(read_leaving(path, max_bytes=MAX_SCHEMA_BYTES))


def _schema(data: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(data) if data else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
