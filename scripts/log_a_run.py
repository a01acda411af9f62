"""Log a run with whatever grpcio and protobuf are installed, and read it back."""

from __future__ import annotations

import importlib.metadata
import tempfile
from os import environ

with tempfile.TemporaryDirectory() as spool:
    environ["MODELYARD_SPOOL_DIR"] = spool
    import modelyard

    with modelyard.start_run("floors") as run:
        modelyard.log_params({"depth": 3, "rate": 0.1, "on": True, "name": "x"})
        for step in range(100):
            modelyard.log_metric("loss", 1.0 / (step + 1), step=step)

    with modelyard.Client() as client:
        found = client.runs.get(run.name)
        assert {p: found.params[p].WhichOneof("kind") for p in found.params} == {
            "depth": "int_value",
            "rate": "float_value",
            "on": "bool_value",
            "name": "string_value",
        }
        assert [(m.key, m.count, m.last) for m in found.metrics] == [("loss", 100, 0.01)]

print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "protobuf")))
