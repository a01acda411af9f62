"""Fill the rival's fresh database with runs, by SQL; run by its own interpreter.

What a run holds is what `seeding.py` gives ours.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from urllib.parse import urlsplit

EXPERIMENT = 1
METRICS = 5
POINTS = 100_000
HISTORY_RUN = "f" * 32


def main(url: str, runs: int) -> None:
    """Write the rows."""
    connection, mark = _connect(url)
    cursor = connection.cursor()
    for table, rows in _rows(runs).items():
        marks = ", ".join([mark] * len(rows[0]))
        columns = ", ".join(COLUMNS[table])
        statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - our names
        if mark == "?":
            cursor.executemany(statement, rows)
        else:
            # Only with PostgreSQL.
            from psycopg2 import extras  # type: ignore[import-untyped]  # noqa: PLC0415

            extras.execute_batch(cursor, statement, rows, page_size=1000)
    connection.commit()
    if mark == "?":
        cursor.execute("ANALYZE")
    else:
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")
    connection.close()


COLUMNS = {
    "experiments": ("experiment_id", "name", "artifact_location", "lifecycle_stage"),
    "runs": (
        *("run_uuid", "name", "source_type", "user_id", "status", "start_time"),
        *("lifecycle_stage", "artifact_uri", "experiment_id"),
    ),
    "metrics": ("key", "value", "timestamp", "run_uuid", "step", "is_nan"),
    "latest_metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "tags": ("key", "value", "run_uuid"),
}


def _rows(runs: int) -> dict[str, list[tuple[object, ...]]]:
    random.seed(1)
    now = int(time.time() * 1000)
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in COLUMNS}
    rows["experiments"] = [(EXPERIMENT, "bench", "mlflow-artifacts:/1", "active")]
    for number in range(runs):
        run = uuid.UUID(int=number + 1).hex
        at = now - runs + number
        uri = f"mlflow-artifacts:/1/{run}"
        start = (run, f"r{number}", "LOCAL", "bench", "RUNNING", at, "active", uri, EXPERIMENT)
        rows["runs"].append(start)
        for key in range(METRICS):
            value = random.random()  # noqa: S311 - no secret
            rows["metrics"].append((f"m{key}", value, at, run, 1, False))
            rows["latest_metrics"].append((f"m{key}", value, at, 1, False, run))
        texts = {"p0": str(number), "p1": f"v{number % 1000}", "p2": "same", "p3": "x", "p4": "y"}
        rows["params"] += [(key, value, run) for key, value in texts.items()]
        tags = {"team": f"t{number % 1000}", "kind": "bench"}
        rows["tags"] += [(key, value, run) for key, value in tags.items()]
    uri = f"mlflow-artifacts:/1/{HISTORY_RUN}"
    rows["runs"].append(
        (HISTORY_RUN, "history", "LOCAL", "bench", "RUNNING", now, "active", uri, EXPERIMENT)
    )
    rows["metrics"] += [
        ("loss", step / 2, now + step, HISTORY_RUN, step, False) for step in range(POINTS)
    ]
    rows["latest_metrics"].append(
        ("loss", (POINTS - 1) / 2, now + POINTS, POINTS - 1, False, HISTORY_RUN)
    )
    return rows


def _connect(url: str):  # type: ignore[no-untyped-def]
    if url.startswith("sqlite"):
        import sqlite3  # noqa: PLC0415 - one of two drivers

        return sqlite3.connect(url.removeprefix("sqlite:///")), "?"
    import psycopg2  # noqa: PLC0415 - one of two drivers

    parts = urlsplit(url)
    connection = psycopg2.connect(
        host=parts.hostname, port=parts.port, user=parts.username, dbname=parts.path[1:]
    )
    return connection, "%s"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
