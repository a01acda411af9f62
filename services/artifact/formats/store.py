"""The table of findings: what was found out about a file stays true, for its bytes do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.artifact.formats.domain import Finding, Verdict
from services.artifact.schema import METADATA
from services.artifact.store import among, insert, slices

FINDINGS = sa.Table(
    "format_findings",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    # Some formats are told apart by the file's name, so it counts.
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("verdict", sa.Integer, nullable=False),
    sa.Column("reasons", sa.LargeBinary, nullable=False),
)

Key = tuple[bytes, str]
"""A file's digest, and its name without folders."""


def find_findings(
    connection: Connection, project: str, keys: Sequence[Key], *, version: int
) -> dict[Key, Finding]:
    """Return what is known of some files."""
    found: dict[Key, Finding] = {}
    for some in slices(sorted({digest for digest, _ in keys})):
        query = sa.select(FINDINGS).where(
            among(FINDINGS, project, some), FINDINGS.c.version == version
        )
        for row in connection.execute(query):
            reasons = msgspec.msgpack.decode(bytes(row.reasons), type=tuple[str, ...])
            finding = Finding(row.format, Verdict(row.verdict), reasons)
            found[bytes(row.digest), row.name] = finding
    return found


def add_findings(
    connection: Connection, project: str, findings: Mapping[Key, Finding], *, version: int
) -> None:
    """Keep what was found out."""
    rows = [
        {
            "project": project,
            "digest": digest,
            "name": name,
            "version": version,
            "format": finding.format,
            "verdict": int(finding.verdict),
            "reasons": msgspec.msgpack.encode(finding.reasons),
        }
        for (digest, name), finding in sorted(findings.items())
    ]
    if rows:
        connection.execute(insert(connection, FINDINGS).on_conflict_do_nothing(), rows)
