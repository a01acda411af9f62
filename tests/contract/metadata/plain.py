"""A registry in plain Python: what the metadata service is to answer, without a database."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Answer = Any


class RefusedError(Exception):
    """The service is to refuse, for this reason."""


@dataclass
class Run:
    """A run."""

    state: str = "RUNNING"
    notes: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    is_deleted: bool = False

    def metrics(self) -> dict[str, float]:
        """Return the last value of each metric."""
        return {key: points[-1][1] for key, points in self.points.items()}


@dataclass
class Version:
    """A version."""

    run: str
    label: str
    description: str
    params: dict[str, Any]
    metrics: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    evaluations: list[float] = field(default_factory=list)
    is_archived: bool = False
    is_deleted: bool = False
    revision: int = 0


@dataclass
class Model:
    """A model with all that is in it."""

    last_number: int = 0
    versions: dict[int, Version] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    history: list[tuple[str, int, int]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    is_deleted: bool = False


class PlainRegistry:
    """Does what the service promises; its methods are those of `ServedRegistry`."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._used_numbers: dict[str, int] = {}

    def create_model(self, model: str) -> Answer:
        """Create a model."""
        if model in self._models:
            raise RefusedError("RESOURCE_EXISTS")
        self._models[model] = self._new_model(model)
        return model

    def delete_model(self, model: str) -> Answer:
        """Delete a model that neither an alias nor a running run needs."""
        found = self._model_of(model)
        if not found.is_deleted:
            runs = found.runs.values()
            is_busy = any(run.state == "RUNNING" and not run.is_deleted for run in runs)
            if found.aliases or is_busy:
                raise RefusedError("RESOURCE_IN_USE")
        found.is_deleted = True
        return True

    def restore_model(self, model: str) -> Answer:
        """Take back that a model was deleted."""
        self._model_of(model).is_deleted = False
        return False

    def purge_model(self, model: str) -> Answer:
        """Remove a deleted model; its numbers stay used."""
        found = self._model_of(model)
        if not found.is_deleted:
            raise RefusedError("WRONG_STATE")
        self._used_numbers[model] = found.last_number
        del self._models[model]
        return None

    def list_models(self) -> Answer:
        """List models by id."""
        return sorted(model for model, found in self._models.items() if not found.is_deleted)

    def create_run(self, model: str, run: str, tags: dict[str, str]) -> Answer:
        """Start a run; its model is made if need be."""
        self._check_writable(model)
        found = self._models.get(model)
        if found is not None and run in found.runs:
            raise RefusedError("RESOURCE_EXISTS")
        made = Run(tags=dict(tags))
        self._models.setdefault(model, self._new_model(model)).runs[run] = made
        return self._run(made)

    def get_run(self, model: str, run: str) -> Answer:
        """Get a run."""
        return self._run(self._run_of(model, run))

    def log(
        self, model: str, run: str, params: dict[str, Any], metrics: dict[str, float], step: int
    ) -> Answer:
        """Log parameters and one step's metrics."""
        found = self._run_of(model, run)
        if found.is_deleted:
            raise RefusedError("WRONG_STATE")
        for key, value in params.items():
            if repr(found.params.get(key, value)) != repr(value):
                raise RefusedError("PARAM_CHANGED")
        found.params |= params
        for key, value in metrics.items():
            found.points.setdefault(key, []).append((step, value))
        return None

    def points(self, model: str, run: str, key: str) -> Answer:
        """Read a metric's points, by step and in order of logging."""
        found = self._run_of(model, run)
        if key not in found.points:
            return []
        return [(at, repr(value)) for at, value in sorted(found.points[key], key=lambda p: p[0])]

    def finish_run(self, model: str, run: str, state: str) -> Answer:
        """End a run."""
        found = self._run_of(model, run)
        if found.is_deleted or (found.state not in {"RUNNING", state}):
            raise RefusedError("WRONG_STATE")
        found.state = state
        return self._run(found)

    def edit_run(self, model: str, run: str, notes: str, tags: dict[str, str]) -> Answer:
        """Change a run's notes and tags."""
        self._check_writable(model)
        found = self._run_of(model, run)
        found.notes, found.tags = notes, dict(tags)
        return self._run(found)

    def delete_run(self, model: str, run: str) -> Answer:
        """Delete a run."""
        self._check_writable(model)
        found = self._run_of(model, run)
        if not found.is_deleted:
            if found.state == "RUNNING":
                raise RefusedError("WRONG_STATE")
            if any(version.run == run for version in self._models[model].versions.values()):
                raise RefusedError("RESOURCE_IN_USE")
        found.is_deleted = True
        return self._run(found)

    def restore_run(self, model: str, run: str) -> Answer:
        """Take back that a run was deleted."""
        self._check_writable(model)
        found = self._run_of(model, run)
        found.is_deleted = False
        return self._run(found)

    def purge_run(self, model: str, run: str) -> Answer:
        """Remove a deleted run."""
        self._check_writable(model)
        if not self._run_of(model, run).is_deleted:
            raise RefusedError("WRONG_STATE")
        del self._models[model].runs[run]
        return None

    def search_runs(self, model: str, wanted: str, *, show_deleted: bool) -> Answer:
        """Find runs with a tag, by a metric and by id; see `FILTER` and `ORDER`."""
        found = self._models.get(model, Model()).runs
        runs = {
            run: one
            for run, one in found.items()
            if one.tags.get("team") == wanted and (show_deleted or not one.is_deleted)
        }

        def place(run: str) -> tuple[bool, float, str]:
            value = runs[run].metrics().get("loss", math.nan)
            return (math.isnan(value), 0.0 if math.isnan(value) else value, run)

        return sorted(runs, key=place)

    def create_version(
        self, model: str, run: str, label: str, description: str, aliases: list[str]
    ) -> Answer:
        """Register a version; its model is made if need be."""
        self._check_writable(model)
        found = self._models.get(model, self._new_model(model))
        source = found.runs.get(run)
        if run and (source is None or source.is_deleted):
            raise RefusedError("RESOURCE_NOT_FOUND")
        if label and any(version.label == label for version in found.versions.values()):
            raise RefusedError("RESOURCE_EXISTS")
        self._models[model] = found
        found.last_number += 1
        version = Version(
            run,
            label,
            description,
            dict(source.params) if source else {},
            source.metrics() if source else {},
        )
        found.versions[found.last_number] = version
        for alias in aliases:
            self._point(found, alias, found.last_number)
        return self._version(model, found.last_number)

    def get_version(self, model: str, number: int) -> Answer:
        """Get a version, deleted or not."""
        self._version_of(model, number)
        return self._version(model, number)

    def newest_version(self, model: str) -> Answer:
        """Get a model's newest version that may be chosen."""
        found = self._models.get(model, Model())
        for number, version in sorted(found.versions.items())[::-1]:
            if not (found.is_deleted or version.is_archived or version.is_deleted):
                return self._version(model, number)
        raise RefusedError("RESOURCE_NOT_FOUND")

    def version_by_label(self, model: str, label: str) -> Answer:
        """Get the version that has a label."""
        for number, version in self._models.get(model, Model()).versions.items():
            if version.label == label and not version.is_deleted:
                return self._version(model, number)
        raise RefusedError("RESOURCE_NOT_FOUND")

    def edit_version(
        self, model: str, number: int, description: str, labels: dict[str, str]
    ) -> Answer:
        """Change a version's description and labels."""
        self._check_writable(model)
        version = self._version_of(model, number)
        version.description, version.labels = description, dict(labels)
        return self._version(model, number)

    def archive(self, model: str, number: int) -> Answer:
        """Archive a version."""
        self._check_writable(model)
        version = self._version_of(model, number)
        if not version.is_archived:
            self._check_unused(model, number)
        version.is_archived = True
        return self._version(model, number)

    def unarchive(self, model: str, number: int) -> Answer:
        """Take back that a version was archived."""
        self._check_writable(model)
        self._version_of(model, number).is_archived = False
        return self._version(model, number)

    def delete_version(self, model: str, number: int) -> Answer:
        """Delete a version."""
        self._check_writable(model)
        version = self._version_of(model, number)
        if not version.is_deleted:
            self._check_unused(model, number)
        version.is_deleted = True
        return self._version(model, number)

    def restore_version(self, model: str, number: int) -> Answer:
        """Take back that a version was deleted."""
        self._check_writable(model)
        self._version_of(model, number).is_deleted = False
        return self._version(model, number)

    def purge_version(self, model: str, number: int) -> Answer:
        """Remove a deleted version."""
        self._check_writable(model)
        if not self._version_of(model, number).is_deleted:
            raise RefusedError("WRONG_STATE")
        del self._models[model].versions[number]
        return None

    def evaluate(self, model: str, number: int, value: float) -> Answer:
        """Record an evaluation."""
        self._check_writable(model)
        version = self._version_of(model, number)
        if version.is_deleted:
            raise RefusedError("WRONG_STATE")
        version.evaluations.append(value)
        return repr(value)

    def evaluations(self, model: str, number: int) -> Answer:
        """List a version's evaluations, newest first."""
        return [repr(value) for value in self._version_of(model, number).evaluations[::-1]]

    def list_versions(self, model: str, *, show_deleted: bool, archived: bool | None) -> Answer:
        """List a model's versions, newest first."""
        versions = self._models.get(model, Model()).versions
        return [
            number
            for number in sorted(versions)[::-1]
            if (show_deleted or not versions[number].is_deleted)
            and archived in {None, versions[number].is_archived}
        ]

    def set_alias(self, model: str, alias: str, number: int, expected: int | None) -> Answer:
        """Point an alias to a version, if it points where it is expected (0: nowhere)."""
        self._check_writable(model)
        version = self._version_of(model, number)
        if version.is_deleted or version.is_archived:
            raise RefusedError("WRONG_STATE")
        found = self._models[model]
        if expected is not None and found.aliases.get(alias, 0) != expected:
            raise RefusedError("ALIAS_MOVED")
        self._point(found, alias, number)
        return number

    def get_alias(self, model: str, alias: str) -> Answer:
        """Say where an alias points."""
        found = self._models.get(model, Model()).aliases.get(alias)
        if found is None:
            raise RefusedError("RESOURCE_NOT_FOUND")
        return found

    def delete_alias(self, model: str, alias: str) -> Answer:
        """Delete an alias."""
        self._check_writable(model)
        old = self.get_alias(model, alias)
        del self._models[model].aliases[alias]
        self._models[model].history.append((alias, old, 0))
        return None

    def alias_history(self, model: str) -> Answer:
        """List where a model's aliases pointed, newest first."""
        return self._models.get(model, Model()).history[::-1]

    def names(self) -> Iterator[tuple[str, Model]]:
        """Yield what there is, for whoever chooses what to do next."""
        yield from self._models.items()

    def _point(self, model: Model, alias: str, number: int) -> None:
        old = model.aliases.get(alias, 0)
        if old != number:
            model.history.append((alias, old, number))
            model.aliases[alias] = number

    def _check_unused(self, model: str, number: int) -> None:
        if number in self._models[model].aliases.values():
            raise RefusedError("RESOURCE_IN_USE")

    def _new_model(self, model: str) -> Model:
        return Model(self._used_numbers.get(model, 0))

    def _model_of(self, model: str) -> Model:
        if model not in self._models:
            raise RefusedError("RESOURCE_NOT_FOUND")
        return self._models[model]

    def _check_writable(self, model: str) -> None:
        if model in self._models and self._models[model].is_deleted:
            raise RefusedError("WRONG_STATE")

    def _run_of(self, model: str, run: str) -> Run:
        found = self._models.get(model, Model()).runs.get(run)
        if found is None:
            raise RefusedError("RESOURCE_NOT_FOUND")
        return found

    def _version_of(self, model: str, number: int) -> Version:
        found = self._models.get(model, Model()).versions.get(number)
        if found is None:
            raise RefusedError("RESOURCE_NOT_FOUND")
        return found

    def _run(self, run: Run) -> Answer:
        return (
            run.state,
            run.notes,
            sorted(run.tags.items()),
            sorted((key, repr(value)) for key, value in run.params.items()),
            sorted((key, len(p), repr(p[-1][1])) for key, p in run.points.items()),
            run.is_deleted,
        )

    def _version(self, model: str, number: int) -> Answer:
        version = self._models[model].versions[number]
        aliases = self._models[model].aliases
        return (
            number,
            version.label,
            version.description,
            sorted(version.labels.items()),
            sorted((key, repr(value)) for key, value in version.params.items()),
            sorted((key, repr(value)) for key, value in version.metrics.items()),
            sorted(alias for alias, at in aliases.items() if at == number),
            version.is_archived,
            version.is_deleted,
        )
