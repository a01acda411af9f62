"""What must be true of metadata's tables at any moment."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlalchemy.engine import Connection

from services.common.sql.checks import Finding, check_common, rows

_NAME = "'projects/' || m.project || '/models/' || m.model"


def check(connection: Connection) -> Iterator[Finding]:
    """Check the database."""
    yield from check_common(connection, "metadata")
    yield from _numbers(connection)
    yield from _aliases(connection)
    yield from _versions(connection)
    yield from _told(connection)


def visible(connection: Connection) -> dict[str, str]:
    """Return the artifact of every version that can be read, by the version's name."""
    found = rows(
        connection,
        f"SELECT {_NAME} || '/versions/' || v.number,"  # noqa: S608
        " 'projects/' || m.project || '/artifacts/' || v.artifact FROM versions v"
        " JOIN models m ON m.pk = v.model_pk"
        " WHERE v.state = 'READY' AND v.artifact != '' AND m.removed_id IS NULL",
    )
    return {str(name): str(artifact) for name, artifact in found}


def registered(connection: Connection) -> dict[str, list[str]]:
    """Return the READY versions that builds made, by build."""
    found = rows(
        connection,
        f"SELECT v.build, {_NAME} || '/versions/' || v.number FROM versions v"  # noqa: S608
        " JOIN models m ON m.pk = v.model_pk WHERE v.build != '' AND v.state = 'READY'",
    )
    versions: dict[str, list[str]] = {}
    for build, version in found:
        versions.setdefault(str(build), []).append(str(version))
    return versions


def _numbers(connection: Connection) -> Iterator[Finding]:
    """A number is allotted once, even after its version or its model is gone."""
    found = rows(
        connection,
        f"SELECT {_NAME}, m.last_number, max(v.number), count(*), count(DISTINCT v.number)"  # noqa: S608
        " FROM models m JOIN versions v ON v.model_pk = m.pk GROUP BY m.pk",
    )
    for name, last, newest, count, distinct in found:
        if newest > last:
            yield Finding("numbers", str(name), f"has version {newest}, allotted were {last}")
        if count != distinct:
            yield Finding("numbers", str(name), "has two versions of one number")
    reused = rows(
        connection,
        f"SELECT {_NAME}, m.last_number, u.last_number FROM models m"  # noqa: S608
        " JOIN used_numbers u ON u.project = m.project AND u.model = m.model"
        " WHERE m.last_number < u.last_number",
    )
    for name, last, used in reused:
        yield Finding("numbers", str(name), f"goes on from {last}, {used} were used before")


def _aliases(connection: Connection) -> Iterator[Finding]:
    found = rows(
        connection,
        f"SELECT {_NAME} || '/aliases/' || a.alias, v.pk, v.state, v.delete_time,"  # noqa: S608
        " v.model_pk = a.model_pk, c.new_number = v.number FROM aliases a"
        " JOIN models m ON m.pk = a.model_pk LEFT JOIN versions v ON v.pk = a.version_pk"
        " LEFT JOIN alias_changes c ON c.pk = a.change_pk",
    )
    for name, version, state, delete_time, is_own, is_told in found:
        if version is None:
            yield Finding("aliases", str(name), "points to no version")
        elif state != "READY" or delete_time is not None or not is_own:
            yield Finding("aliases", str(name), "points to a version that cannot be used")
        elif not is_told:
            yield Finding("aliases", str(name), "does not point where its history says")


def _told(connection: Connection) -> Iterator[Finding]:
    """The ledger tells of every version that became READY since its oldest event."""
    ready = rows(
        connection,
        f"SELECT {_NAME} || '/versions/' || v.number, v.ready_time, o.time_us FROM versions v"  # noqa: S608
        " JOIN models m ON m.pk = v.model_pk LEFT JOIN (SELECT topic, min(time_us) AS time_us"
        " FROM events GROUP BY topic) o ON o.topic = 'projects/' || m.project"
        " WHERE v.state = 'READY' AND m.removed_id IS NULL",
    )
    told: set[str] = set()
    for (payload,) in rows(connection, "SELECT payload FROM events WHERE kind = 'version.ready'"):
        told.add(str(msgspec.msgpack.decode(bytes(payload))["name"]))
    for name, ready_time, oldest in ready:
        if name not in told and (oldest is None or ready_time >= oldest):
            yield Finding("ledger", str(name), "became READY, and no event tells of it")


def _versions(connection: Connection) -> Iterator[Finding]:
    found = rows(
        connection,
        f"SELECT {_NAME} || '/versions/' || v.number, v.state, v.ready_time FROM versions v"  # noqa: S608
        " JOIN models m ON m.pk = v.model_pk",
    )
    for name, state, ready_time in found:
        if (state == "READY") != (ready_time is not None):
            yield Finding(
                "versions", str(name), f"is {state}, but its time of that is {ready_time}"
            )
