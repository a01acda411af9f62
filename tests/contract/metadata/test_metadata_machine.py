"""Whatever is done, plain Python, SQLite and PostgreSQL answer alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from services.common.sql.engines import create_engine, migrate
from services.metadata.settings import MetadataSettings
from services.metadata.wiring import MIGRATIONS
from tests.contract.metadata.plain import PlainRegistry, RefusedError
from tests.contract.metadata.served import ServedRegistry, Server, refusals
from tests.servers.postgres import PostgresServer

MODELS = st.sampled_from(["churn", "fraud"])
RUNS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(1, 4)
ALIASES = st.sampled_from(["production", "best"])
LABELS = st.sampled_from(["1.0.0", "1.0.0-rc.1", "2.0.0+linux"])
TEXTS = st.sampled_from(["", "x", "é\u202e'\"\\%_"])
MAPS = st.dictionaries(st.sampled_from(["team", "k"]), st.sampled_from(["risk", "", "ü"]))
VALUES = st.sampled_from([1.5, -0.0, 0.0, math.nan, math.inf, -math.inf, 5e-324])
PARAMS = st.dictionaries(
    st.sampled_from(["lr", "depth"]), st.sampled_from([1, 1.0, True, "1", [1, "a"], math.nan])
)
METRICS = st.dictionaries(st.sampled_from(["loss", "f1"]), VALUES)
STATES = st.sampled_from(["SUCCEEDED", "FAILED", "CANCELLED"])


class RegistryMachine(RuleBasedStateMachine):
    """Does the same to all three and holds their answers against each other."""

    servers: ClassVar[list[Server]] = []

    def __init__(self) -> None:
        super().__init__()
        self._plain = PlainRegistry()
        self._served = [ServedRegistry(server) for server in self.servers]

    def teardown(self) -> None:
        """Close the connections."""
        for one in self._served:
            one.close()

    def _do(self, operation: str, *arguments: Any, **named: Any) -> None:
        expected = _answer(self._plain, operation, *arguments, **named)
        for one in self._served:
            with_refusals = _answer(one, operation, *arguments, **named)
            assert with_refusals == expected, (operation, arguments, named)

    @rule(model=MODELS)
    def create_model(self, model: str) -> None:
        self._do("create_model", model)

    @rule(
        model=MODELS,
        operation=st.sampled_from(["delete_model", "restore_model", "purge_model"]),
    )
    def end_model(self, model: str, operation: str) -> None:
        self._do(operation, model)
        self._do("list_models")

    @rule(model=MODELS, run=RUNS, tags=MAPS)
    def create_run(self, model: str, run: str, tags: dict[str, str]) -> None:
        self._do("create_run", model, run, tags)

    @rule(model=MODELS, run=RUNS, params=PARAMS, metrics=METRICS, step=st.integers(-2, 5))
    def log(self, model: str, run: str, params: Any, metrics: Any, step: int) -> None:
        self._do("log", model, run, params, metrics, step)
        for key in metrics:
            self._do("points", model, run, key)

    @rule(model=MODELS, run=RUNS, state=STATES)
    def finish_run(self, model: str, run: str, state: str) -> None:
        self._do("finish_run", model, run, state)

    @rule(model=MODELS, run=RUNS, notes=TEXTS, tags=MAPS)
    def edit_run(self, model: str, run: str, notes: str, tags: dict[str, str]) -> None:
        self._do("edit_run", model, run, notes, tags)

    @rule(
        model=MODELS,
        run=RUNS,
        operation=st.sampled_from(["delete_run", "restore_run", "purge_run", "get_run"]),
    )
    def end_run(self, model: str, run: str, operation: str) -> None:
        self._do(operation, model, run)

    @rule(
        model=MODELS,
        run=RUNS | st.just(""),
        label=LABELS | st.just(""),
        description=TEXTS,
        aliases=st.lists(ALIASES, unique=True, max_size=2),
    )
    def create_version(
        self, model: str, run: str, label: str, description: str, aliases: list[str]
    ) -> None:
        self._do("create_version", model, run, label, description, aliases)

    @rule(model=MODELS, number=NUMBERS, description=TEXTS, labels=MAPS)
    def edit_version(
        self, model: str, number: int, description: str, labels: dict[str, str]
    ) -> None:
        self._do("edit_version", model, number, description, labels)

    @rule(
        model=MODELS,
        number=NUMBERS,
        operation=st.sampled_from(
            ["archive", "unarchive", "delete_version", "restore_version", "purge_version"]
        ),
    )
    def end_version(self, model: str, number: int, operation: str) -> None:
        self._do(operation, model, number)
        self._do("get_version", model, number)

    @rule(model=MODELS, number=NUMBERS, value=VALUES)
    def evaluate(self, model: str, number: int, value: float) -> None:
        self._do("evaluate", model, number, value)
        self._do("evaluations", model, number)

    @rule(model=MODELS, alias=ALIASES, number=NUMBERS, expected=st.none() | st.integers(0, 3))
    def set_alias(self, model: str, alias: str, number: int, expected: int | None) -> None:
        self._do("set_alias", model, alias, number, expected)
        self._do("get_alias", model, alias)

    @rule(model=MODELS, alias=ALIASES)
    def delete_alias(self, model: str, alias: str) -> None:
        self._do("delete_alias", model, alias)

    @rule(
        model=MODELS,
        wanted=st.sampled_from(["risk", "", "none"]),
        label=LABELS,
        show_deleted=st.booleans(),
        archived=st.none() | st.booleans(),
    )
    def look(
        self,
        model: str,
        wanted: str,
        label: str,
        *,
        show_deleted: bool,
        archived: bool | None,
    ) -> None:
        self._do("list_models")
        self._do("newest_version", model)
        self._do("version_by_label", model, label)
        self._do("search_runs", model, wanted, show_deleted=show_deleted)
        self._do("list_versions", model, show_deleted=show_deleted, archived=archived)

    @invariant()
    def histories_are_chains(self) -> None:
        for model, _ in self._plain.names():
            self._do("alias_history", model)
            at: dict[str, int] = {}
            for alias, old, new in self._plain.alias_history(model)[::-1]:
                assert at.get(alias, 0) == old != new
                at[alias] = new


def _answer(
    registry: PlainRegistry | ServedRegistry, operation: str, *args: Any, **named: Any
) -> Any:
    try:
        with refusals():
            return getattr(registry, operation)(*args, **named)
    except RefusedError as error:
        return f"refused: {error}"


@pytest.fixture(scope="module")
def servers(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """One service on each database."""
    found = []
    with postgres_server.database() as url:
        engine = create_engine(url)
        migrate(engine, MIGRATIONS)
        engine.dispose()
        for kind in ("sqlite", "postgres"):
            folder = tmp_path_factory.mktemp(kind)
            settings_ = MetadataSettings(
                database_url=url if kind == "postgres" else f"sqlite:///{folder / 'metadata.db'}",
                tokens_dir=str(folder / "tokens"),
                heartbeat_seconds=3_600,
            )
            found.append(Server(settings_, folder))
        yield found
        for server in found:
            server.close()


def test_all_three_answer_alike(servers: list[Server]) -> None:
    _run(servers, examples=12, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_all_three_answer_alike_for_long(servers: list[Server]) -> None:
    _run(servers, examples=400, steps=50)


def _run(servers: list[Server], *, examples: int, steps: int) -> None:
    RegistryMachine.servers = servers
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=examples < 100,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
