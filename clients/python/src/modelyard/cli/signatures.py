"""`modelyard signatures`: who vouches for a version's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.render import moment, show_list, show_one

Key = Annotated[Path, typer.Option(help="A PEM file with an elliptic-curve key.", exists=True)]


def register(group: typer.Typer) -> None:
    """Add `signatures` to the command line."""

    @group.command("sign")
    def sign(version: str, key: Key) -> None:
        """Sign a version's files, as OpenSSF model signing does, with a private key."""
        made = client().signatures.sign(version, key)
        show_one(made, {"signature": made.sha256, "key": made.key_hint})

    @group.command("add")
    def add(version: str, bundle: Annotated[Path, typer.Argument(exists=True)]) -> None:
        """Keep a signature that `model_signing sign key` made of the same files."""
        made = client().signatures.add(version, bundle.read_bytes())
        show_one(made, {"signature": made.sha256, "key": made.key_hint})

    @group.command("verify")
    def verify(version: str, key: Key) -> None:
        """Verify a version's signatures with a public key; exit with 1 when none holds."""
        found = client().signatures.verify(version, key)
        show_one(found, {"signature": found.sha256, "by": found.creator, "holds": "yes"})

    @group.command("list")
    def list_signatures(version: str) -> None:
        """List a version's signatures."""
        show_list(
            client().signatures.list(version),
            {
                "SIGNATURE": lambda s: s.sha256[:16],
                "KEY": lambda s: s.key_hint[:16],
                "BY": lambda s: s.creator,
                "ADDED": lambda s: moment(s.create_time),
            },
        )
