"""One attempt of a build: what it has in hand, and how its steps can fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from modelyard import AsyncClient
from modelyard.builder.v1 import build_pb2, worker_service_pb2
from modelyard.common.v1 import failure_pb2

from services.builder.worker.limits import Limits
from services.builder.worker.lines import Line
from services.builder.worker.masking import Mask
from services.builder.worker.patience import persist
from services.builder.worker.processes import Cage
from services.builder.worker.reporting import STDERR, STDOUT, SYSTEM, EventReporter
from services.builder.worker.room import Room, interpreter_folders
from services.builder.worker.settings import WorkerSettings
from services.builder.worker.spooling import RunSpool
from services.common.environments.making import Environment, Environments
from services.common.service import SuiteSettings

MAX_MESSAGE = 4_000

T = TypeVar("T")


class PhaseFailedError(Exception):
    """A phase ended badly, for a reason that `Build.failure` documents."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure_pb2.Failure(reason=reason, message=message[:MAX_MESSAGE])


@dataclass(slots=True)
class Credential:
    """The build's delegation, replaced whenever the lease is extended."""

    value: str = field(repr=False)


@dataclass(slots=True)
class Work:
    """What the phases of one attempt share."""

    lease: worker_service_pb2.Lease
    build: build_pb2.Build
    folder: Path
    credential: Credential
    reporter: EventReporter
    spool: RunSpool
    cage: Cage
    limits: Limits
    environments: Environments
    suite: SuiteSettings
    settings: WorkerSettings
    mask: Mask = field(default_factory=Mask)
    secret_values: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the secrets' names."""
    lock: str = ""
    environment: Environment | None = None
    data_artifacts: dict[str, str] = field(default_factory=dict)
    """Of the data that the build reads, by its names."""
    tests_passed: bool = False
    test_counts: build_pb2.TestCounts | None = None
    test_report: bytes = b""
    schema: dict[str, Any] | None = None
    """Of the model's inputs and outputs, as its smoke prediction tells it."""
    python_version: str = ""
    card: str = ""
    license: str = ""
    image_digest: str = ""
    """Of the image's manifest; empty when none is made."""
    image_tag: str = ""
    """What the image is called; the same for the same contents."""

    @property
    def source(self) -> Path:
        """Return the folder of the source."""
        return self.folder / "source"

    @property
    def data(self) -> Path:
        """Return the folder of the data that the build reads, a folder for each."""
        return self.folder / "data"

    @property
    def bundle(self) -> Path:
        """Return the folder that becomes the version's artifact."""
        return self.folder / "bundle"

    @property
    def image(self) -> Path:
        """Return the folder that becomes the image's artifact."""
        return self.folder / "image"

    @property
    def evidence(self) -> Path:
        """Return the folder that becomes the evidence's artifact."""
        return self.folder / "evidence"

    @property
    def lock_file(self) -> Path:
        """Return the file with the environment's lock."""
        return self.folder / "requirements.lock"

    def take_secrets(self, values: Mapping[str, str]) -> None:
        """Take the values of the build's secrets; from now on the log does not show them."""
        self.secret_values = values
        self.mask = Mask(values.values())

    @property
    def code_variables(self) -> dict[str, str]:
        """Return the variables that the spec gives to the source's code."""
        spec = self.build.spec
        secrets = {secret.variable: self.secret_values[secret.secret] for secret in spec.secrets}
        return {**spec.variables, **secrets, "MODELYARD_DATA": str(self.data)}

    def note_code(self) -> None:
        """Log on the run where the code came from, before anything of it runs."""
        spec, origin = self.build.spec, self.build.origin
        self.spool.note_code(
            {
                "repository": origin.repository,
                "commit": origin.commit,
                "branch": origin.branch,
                "dirty": origin.dirty,
                "diff": spec.origin.diff,
                "snapshot": self.build.source,
                "entry_point": spec.entry or "model.py",
            }
        )

    def say(self, text: str) -> None:
        """Add lines of the builder's own to the log."""
        for line in self.mask.text(text).splitlines():
            self.reporter.line(SYSTEM, line)

    async def ask(self, wanted: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Have the suite do what is safe to repeat; while it is away or busy, wait.

        Each try has the delegation of its time. How long to wait is for the phase's time to say.

        Raises:
            ModelyardError: the suite refuses it.
        """

        async def attempt() -> T:
            async with self._client() as client:
                return await wanted(client)

        return await persist(attempt)

    def _client(self) -> AsyncClient:
        """Connect with the build's delegation."""
        return AsyncClient(
            self.suite.suite_address,
            token=self.credential.value,
            project=self.build.name.split("/")[1],
            root_certificates=self.suite.root_certificates or None,
        )

    async def python(self, *arguments: str, variables: Mapping[str, str] | None = None) -> int:
        """Run the environment's Python in the source folder; return its status.

        Raises:
            PhaseFailedError: it passed one of the build's limits.
        """
        return await self.python_heard(arguments, variables or {}, [])

    async def python_heard(
        self, arguments: tuple[str, ...], variables: Mapping[str, str], heard: list[str]
    ) -> int:
        """Run the environment's Python; keep its standard output's lines in `heard` as well."""
        if self.environment is None:
            raise AssertionError
        print_stdout, print_stderr = map(self.reporter.printer, (STDOUT, STDERR))

        async def hear(line: Line) -> None:
            if not line.progress:
                heard.append(line.text)
            await print_stdout(line)

        ended = await self.cage.run(
            [str(self.environment.python), *arguments],
            room=self._room(self.environment),
            limits=self.limits,
            environment={**self._variables(), **variables},
            on_stdout=hear,
            on_stderr=print_stderr,
            mask=self.mask,
        )
        if ended.breach is not None:
            raise PhaseFailedError(ended.breach.reason, ended.breach.message)
        return ended.status

    def _room(self, environment: Environment) -> Room:
        """Say what the build's code can see and write."""
        return Room(
            self.folder,
            self.source,
            writable=(self.source, self.bundle, *self.spool.files),
            protected=(self.data,),
            readable=(self.environments.folder, *interpreter_folders(environment.folder)),
            network=self.build.spec.network,
        )

    def _variables(self) -> dict[str, str]:
        """Return all that a build's code finds in its environment: nothing of the worker's own."""
        programs = self.environment.python.parent if self.environment else Path("/usr/bin")
        return {
            **self.limits.variables(),
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "MODELYARD_BUILD_SPOOL": str(self.spool.folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def how_ended(status: int) -> str:
    """Say how a process ended that ended badly."""
    if status > 128:
        return f"was ended by signal {status - 128}"
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
