"""What MLflow's things become: names, tags, states. What has no place is kept as a tag."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MAX_ID = 63
MAX_TAGS = 64
MAX_TAG_KEY = 63
MAX_TAG_VALUE = 255
RUN_PREFIX = "mlflow-"
VERSION_LABEL = "mlflow.version"
RUN_LABEL = "mlflow.run_id"
STATES = {"FINISHED": "succeeded", "FAILED": "failed", "KILLED": "cancelled"}
"""MLflow's states of runs that have ended, and what they are here."""

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What the client of MLflow notes for itself, and what is told in other words.
_OMITTED = ("mlflow.log-model.history", "mlflow.runName", "mlflow.note.content")


@dataclass(slots=True)
class Tags:
    """Tags as they are kept, and what of them did not fit."""

    kept: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def model_id(name: str) -> str:
    """Return the model id of an experiment or registered model; what is one already stays."""
    return _id(name, "model")


def alias_id(name: str) -> str:
    """Return the id of an alias."""
    return _id(name, "alias")


def run_id(mlflow_id: str) -> str:
    """Return the id of a run."""
    return f"{RUN_PREFIX}{mlflow_id}"


def group_of(run: Mapping[str, Any]) -> str:
    """Return the group of a nested run, which is its parent's id; empty for any other."""
    parent = pairs(run.get("data", {}).get("tags", ())).get("mlflow.parentRunId", "")
    return run_id(parent) if parent and _ID.fullmatch(run_id(parent)) else ""


def run_tags(run: Mapping[str, Any], experiment: str) -> Tags:
    """Return a run's tags: what MLflow says of it, then its own."""
    info, tags = run["info"], pairs(run.get("data", {}).get("tags", ()))
    own = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
    system = {key: value for key, value in tags.items() if key.startswith("mlflow.")}
    facts = {
        RUN_LABEL: info["run_id"],
        "mlflow.experiment": experiment,
        "mlflow.user": info.get("user_id", ""),
        "mlflow.start_time": _moment(info.get("start_time")),
        "mlflow.end_time": _moment(info.get("end_time")),
    }
    return fitted(facts, own, system)


def version_labels(version: Mapping[str, Any]) -> Tags:
    """Return a version's labels: where it comes from, then its tags."""
    stage = version.get("current_stage", "")
    facts = {
        VERSION_LABEL: str(version["version"]),
        RUN_LABEL: version.get("run_id", ""),
        "mlflow.source": version.get("source", ""),
        "mlflow.stage": "" if stage in ("", "None") else stage,
        "mlflow.user": version.get("user_id", ""),
        "mlflow.create_time": _moment(version.get("creation_timestamp")),
    }
    return fitted(facts, pairs(version.get("tags", ())))


def fitted(*parts: Mapping[str, str], room: int = MAX_TAGS - 4) -> Tags:
    """Return tags that keep to the limits; the first of a key wins, long ones are shortened."""
    found = Tags()
    for part in parts:
        for key, value in part.items():
            if key in found.kept or key in _OMITTED or not value:
                continue
            short, text = _line(key, MAX_TAG_KEY), _line(value, MAX_TAG_VALUE)
            if len(found.kept) >= room or not short or short in found.kept:
                found.lost.append(key)
                continue
            if (short, text) != (key, value):
                found.lost.append(key)
            found.kept[short] = text
    return found


def pairs(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return a list of keys and values as MLflow sends it as a mapping."""
    return {entry["key"]: entry.get("value", "") for entry in entries}


def notes_of(run: Mapping[str, Any]) -> str:
    """Return a run's notes."""
    return pairs(run.get("data", {}).get("tags", ())).get("mlflow.note.content", "")


def fingerprint(run: Mapping[str, Any]) -> str:
    """Return what changes when something is logged to a run, or when its state does."""
    data, info = run.get("data", {}), run["info"]
    latest = sorted(
        (m["key"], str(m.get("value")), m.get("timestamp"), m.get("step"))
        for m in data.get("metrics", ())
    )
    params, tags = pairs(data.get("params", ())), pairs(data.get("tags", ()))
    facts = repr((latest, sorted(params.items()), sorted(tags.items()), info.get("status")))
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _id(name: str, otherwise: str) -> str:
    if _ID.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"{otherwise}-{slug}".strip("-")
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]  # two names never become one id
    return f"{slug[: MAX_ID - 7].rstrip('-')}-{mark}"


def _moment(milliseconds: Any) -> str:
    if not milliseconds:
        return ""
    moment = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(text: str, limit: int) -> str:
    return _CONTROL.sub(" ", text)[:limit]
