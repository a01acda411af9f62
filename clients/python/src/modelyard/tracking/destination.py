"""Where a spool goes: what `run.json` holds, and the connection made of it."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from modelyard._transport.config import ConnectionSettings, config_path
from modelyard.errors import ConfigError
from modelyard.tracking.liveness import ProcessIdentity
from modelyard.tracking.spool import FACTS_FILE


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run before the server knows of it, and where it goes."""

    run: str
    writer: str
    request_id: str
    server: str
    trainer: ProcessIdentity
    directory: str = ""
    entry_point: str = ""
    display_name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    group: str = ""
    notes: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    root_certificates: str = field(default="", repr=False)
    certificates_file: str = ""

    def settings(self) -> ConnectionSettings:
        """Return how to reach the server now; a token file is read afresh each time.

        Raises:
            ConfigError: The token file cannot be read.
        """
        token = self.token
        if self.token_file:
            try:
                token = Path(self.token_file).read_text().strip()
            except OSError as error:
                raise ConfigError(f"cannot read {self.token_file}: {error.strerror}") from error
        return ConnectionSettings(
            server=self.server,
            token=token,
            project=self.run.split("/")[1],
            root_certificates=self._certificates(),
            certificates_file=Path(self.certificates_file) if self.certificates_file else None,
        )

    def _certificates(self) -> bytes | None:
        """Return those of the file, which may be newer; those of the run's start if it is gone."""
        with contextlib.suppress(OSError):
            if self.certificates_file:
                return Path(self.certificates_file).read_bytes()
        return self.root_certificates.encode() or None


def dump_facts(facts: RunFacts) -> dict[str, object]:
    """Return facts as they are kept in `run.json`."""
    return asdict(facts)


def load_facts(directory: Path) -> RunFacts:
    """Read a spool's `run.json`; raise ValueError when it is not whole."""
    try:
        values = json.loads((directory / FACTS_FILE).read_bytes())
        return RunFacts(**{**values, "trainer": ProcessIdentity(**values["trainer"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{directory / FACTS_FILE}: {error}") from error


def find_token_file(token: str, environ: Mapping[str, str]) -> str:
    """Return the file that a token was read from, so that the spool need not hold it."""
    candidates = [environ.get("MODELYARD_TOKEN_FILE", "")]
    config = config_path(environ)
    if config.is_file():
        candidates.append(str(tomllib.loads(config.read_text()).get("token_file", "")))
    for candidate in filter(None, candidates):
        path = Path(candidate).expanduser().absolute()
        if path.is_file() and path.read_text().strip() == token:
            return str(path)
    return ""
