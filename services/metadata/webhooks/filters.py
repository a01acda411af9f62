"""What a webhook's filter may ask of a change: what the filters of watches may, of any change."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.common.listing.filter_matching import (
    FieldMatcher,
    Match,
    match_filter,
    text_matcher,
    word_matcher,
)
from services.common.sql.outbox import Event
from services.metadata.changes import Change, ChangeKind
from services.metadata.models.domain import VersionState
from services.metadata.runs.domain import RunState
from services.metadata.watching.cursors import Stream
from services.metadata.watching.domain import FIELDS as WATCHED
from services.metadata.watching.domain import Told

_KINDS = frozenset(kind.value for kind in ChangeKind)
_DECODER = msgspec.msgpack.Decoder(Change)


def compiled(text: str) -> Match[Told]:
    """Return the test that a filter is; the empty filter lets everything pass.

    Raises:
        ServiceError: INVALID_FILTER.
    """
    return match_filter(text, FIELDS)


def is_known(event: Event) -> bool:
    """Say whether this release knows the kind of change that an event tells of."""
    return event.kind in _KINDS


def told(event: Event) -> Told:
    """Return an event as filters see it."""
    change = _DECODER.decode(event.payload)
    parts = tuple(change.name.split("/"))
    return Told(event.sequence, event.time, ChangeKind(event.kind), change, parts)


def _owner(collection: str) -> FieldMatcher[Told]:
    def ident(told: Told) -> str | None:
        return told.parts[3] if told.parts[2:3] == (collection,) else None

    return text_matcher(ident)


FIELDS: Mapping[str, FieldMatcher[Told]] = {
    **WATCHED[Stream.RUNS],
    **WATCHED[Stream.MODELS],
    "type": word_matcher(lambda told: told.kind.name, [kind.name for kind in ChangeKind]),
    "model": _owner("models"),
    "dataset": _owner("datasets"),
    "automation": _owner("automations"),
    "state": word_matcher(
        lambda told: told.state,
        sorted({*VersionState, *RunState, "ARCHIVED", "DELETED", "SKIPPED"}),
    ),
}
