"""The architecture as a test: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("metadata", "artifact", "builder", "deployer")
MAX_FILE, MAX_FUNCTION = 450, 60
# The only places that speak gRPC and protos: the edge of a service, and what calls others.
EDGE = ("servicer", "codec", "wiring", "wire")
SQL = ("store", "schema", "migrations")


def sources(*folders: str) -> list[Path]:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(p for p in paths if "_pb2" not in p.name)


@cache
def imports(path: Path, *, for_types: bool = True) -> tuple[str, ...]:
    body = [n for n in ast.parse(path.read_text()).body if for_types or not is_for_types(n)]
    return tuple(name for node in chain.from_iterable(map(ast.walk, body)) for name in named(node))


def named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def is_in(path: Path, names: tuple[str, ...]) -> bool:
    parts = {*path.relative_to(ROOT).parts, path.stem}
    return any(part == name or part.endswith(f"_{name}") for part in parts for name in names)


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    others = tuple(
        f"services.{other}" for other in (*SERVICES, "suite", "demo") if other != service
    )
    for path in sources(f"services/{service}"):
        found = [name for name in imports(path) if name.startswith(others)]
        assert not found, f"{path} imports {found}"


def test_the_chassis_knows_no_service() -> None:
    services = tuple(f"services.{name}" for name in (*SERVICES, "suite", "demo"))
    for path in sources("services/common"):
        assert not [name for name in imports(path) if name.startswith(services)], path


@pytest.mark.parametrize("service", SERVICES)
def test_only_stores_know_sql(service: str) -> None:
    for path in sources(f"services/{service}"):
        if not is_in(path, SQL):
            found = [name for name in imports(path) if name.startswith(("sqlalchemy", "alembic"))]
            assert not found, f"{path} imports {found}"


@pytest.mark.parametrize("service", SERVICES)
def test_domain_and_stores_know_no_protos(service: str) -> None:
    for path in sources(f"services/{service}"):
        if is_in(path, ("domain", "rules", "gates", *SQL)):
            found = [n for n in imports(path) if n.startswith(("grpc", "google")) or "_pb2" in n]
            assert not found, f"{path} imports {found}"


def test_the_client_knows_no_server() -> None:
    for path in sources("clients/python/src"):
        assert not [name for name in imports(path) if name.startswith("services")], path


def test_no_import_of_the_client_leads_back() -> None:
    folder = ROOT / "clients/python/src"
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in sources("clients/python/src")
        if path.stem != "__init__"
    }
    needs = {
        name: modules.keys() & imports(path, for_types=False) for name, path in modules.items()
    }
    assert any(needs.values())
    TopologicalSorter(needs).prepare()  # raises with a circle if there is one


def test_files_and_functions_stay_small() -> None:
    long = []
    for path in sources("services", "clients/python/src", "tests", "benchmarks", "scripts"):
        text = path.read_text()
        if text.count("\n") > MAX_FILE:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


@pytest.mark.parametrize("path", [p for p in sources("services") if p.stem.endswith("servicer")])
def test_the_edge_is_thin(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 16, f"{path}:{node.lineno} {node.name}: {lines} lines"
            assert not any(isinstance(inner, ast.Try) for inner in ast.walk(node)), node.name
