"""`modelyard migrate`: every service's database brought to this release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from services.common.sql.engines import create_engine, migrate

SERVICES = ("metadata", "artifact", "builder", "deployer")
ROOT = Path(__file__).resolve().parent.parent


def migrate_all(environ: Mapping[str, str]) -> Iterator[str]:
    """Migrate each database that `MODELYARD_<SERVICE>_DATABASE_URL` names; tell of each."""
    for service in SERVICES:
        url = environ.get(f"MODELYARD_{service.upper()}_DATABASE_URL", "")
        if not url:
            yield f"{service}: no database named, left alone"
            continue
        engine = create_engine(url)
        migrate(engine, ROOT / service / "migrations")
        engine.dispose()
        yield f"{service}: up to date"
