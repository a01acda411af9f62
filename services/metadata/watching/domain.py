"""Changes as watchers are told of them, and what their filters may ask of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from services.common.listing.filter_matching import (
    FieldMatcher,
    map_matcher,
    number_matcher,
    text_matcher,
    word_matcher,
)
from services.common.names import WILDCARD, ModelName
from services.common.sql.outbox import Event
from services.metadata.changes import Change, ChangeKind
from services.metadata.models.domain import VersionState
from services.metadata.runs.domain import RunState
from services.metadata.watching.cursors import Stream

R = TypeVar("R")

_DECODER = msgspec.msgpack.Decoder(Change)
_RUN = "RUN_"


@dataclass(frozen=True, slots=True)
class Told:
    """One change and its place in its project's ledger.

    `parts` are those of its name: `projects`, P, `models`, M, and, below the model, a
    collection and an id.
    """

    sequence: int
    time: datetime
    kind: ChangeKind
    change: Change
    parts: tuple[str, ...]

    @property
    def model(self) -> str:
        """Return the id of the model it is about."""
        return self.parts[3]

    @property
    def type(self) -> str:
        """Return what happened, in the word of the stream that tells it."""
        return self.kind.name.removeprefix(_RUN)

    @property
    def state(self) -> str | None:
        """Return the state that the change left, if it has one."""
        return self.change.state or None

    @property
    def version(self) -> int | None:
        """Return the number of the version it is about; an alias's: where it points, or did."""
        change = self.change
        pointed = change.new_version or change.old_version or change.version
        number = _id_in(pointed.split("/") if pointed else self.parts, "versions")
        return None if number is None else int(number)

    def id_in(self, collection: str) -> str | None:
        """Return its id in a collection below the model, such as `runs`."""
        return _id_in(self.parts, collection)


@dataclass(frozen=True, slots=True)
class Batch(Generic[R]):
    """Some changes, each with what it is about as that is now, and the cursor after them."""

    changes: Sequence[tuple[Told, R | None]]
    cursor: str


def tell(event: Event, stream: Stream, parent: ModelName) -> Told | None:
    """Return what an event tells the watchers of a stream and a parent; None if nothing."""
    is_run = event.kind.startswith("run.")
    if is_run is not (stream is Stream.RUNS) or event.kind not in _KINDS:
        return None
    change = _DECODER.decode(event.payload)
    parts = tuple(change.name.split("/"))
    if parent.model not in (WILDCARD, parts[3]):
        return None
    return Told(event.sequence, event.time, ChangeKind(event.kind), change, parts)


def _id_in(parts: Sequence[str], collection: str) -> str | None:
    return parts[5] if list(parts[4:5]) == [collection] else None


_MODEL_KINDS = [
    kind for kind in ChangeKind if kind.value.startswith(("model.", "version.", "alias.", "use."))
]
_RUN_KINDS = [kind for kind in ChangeKind if kind.value.startswith("run.")]
_KINDS = frozenset(kind.value for kind in (*_MODEL_KINDS, *_RUN_KINDS))

FIELDS: Mapping[Stream, Mapping[str, FieldMatcher[Told]]] = {
    Stream.MODELS: {
        "type": word_matcher(lambda told: told.type, [kind.name for kind in _MODEL_KINDS]),
        "model": text_matcher(lambda told: told.model),
        "version": number_matcher(lambda told: told.version),
        "alias": text_matcher(lambda told: told.id_in("aliases")),
        "state": word_matcher(lambda told: told.state, [*VersionState, "ARCHIVED", "DELETED"]),
        "actor": text_matcher(lambda told: told.change.actor or None),
    },
    Stream.RUNS: {
        "type": word_matcher(
            lambda told: told.type, [kind.name.removeprefix(_RUN) for kind in _RUN_KINDS]
        ),
        "model": text_matcher(lambda told: told.model),
        "run": text_matcher(lambda told: told.id_in("runs")),
        "state": word_matcher(lambda told: told.state, [*RunState, "DELETED"]),
        "group": text_matcher(lambda told: told.change.group or None),
        "build": text_matcher(lambda told: told.change.build or None),
        "creator": text_matcher(lambda told: told.change.creator or None),
        "tags": map_matcher(lambda told: told.change.tags),
    },
}
