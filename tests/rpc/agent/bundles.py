"""Bundles made by hand: a model with numpy alone, to run in the tests' own environment."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.deployer.agent.model_server import ModelServerSpec

MODEL = """
import os
import time

from modelyard.model import Model


class Sum(Model):
    def predict(self, inputs):
        x = inputs["x"]
        if (x == -1).any():
            raise ValueError("the secret is 42")
        if (x == -2).any():
            os._exit(3)
        if x.size and x.max() > 100:
            print("takes its time", flush=True)
            time.sleep(float(x.max()) / 1000)
        return {"total": x.sum(axis=1) + self.bias}


class Together(Sum):
    def predict(self, inputs):
        time.sleep(0.02)  # so that requests wait
        total = super().predict(inputs)["total"]
        return {"total": total, "rows": [len(total)] * len(total)}


class Whole(Sum):
    def predict(self, inputs):
        return {"total": super().predict(inputs)["total"].sum(keepdims=True)}


class Picky(Sum):
    def predict(self, inputs):
        if inputs["x"][0][0] == os.getpid():
            raise ValueError("not this process")
        return {"total": [float(os.getpid())]}


class Mirror(Model):
    def predict(self, inputs):
        if "die" in inputs:
            os._exit(3)
        if "hold" in inputs:
            self.held = b"x" * 512 * 1024 * 1024
            time.sleep(60)
        if "bf16" in inputs:
            import ml_dtypes
            return {"bf16": inputs["bf16"].astype(ml_dtypes.bfloat16)}
        return {**inputs, "pid": [os.getpid()]}


class NeverLoads(Sum):
    def load(self, path):
        print("cannot be loaded", flush=True)
        raise RuntimeError("no weights")


class LoadsForever(Sum):
    def load(self, path):
        print("loading the weights", flush=True)
        time.sleep(600)
"""
LOCK = b"numpy==2.0.0\n"


def infer_body(*row: float) -> dict[str, Any]:
    """Return an infer request for one row."""
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, len(row)], "data": list(row)}
    return {"inputs": [tensor]}


def make_bundle(
    folder: Path, *, bias: float = 0, entry: str = "Sum", example: tuple[float, ...] = (1, 2)
) -> Path:
    """Write a bundle whose model sums each row and adds a bias."""
    for name in ("model", "code", "environment"):
        (folder / name).mkdir(parents=True)
    (folder / "code" / "model.py").write_text(MODEL)
    (folder / "model" / "state.pkl").write_bytes(pickle.dumps({"bias": bias}))
    (folder / "environment" / "requirements.lock").write_bytes(LOCK)
    (folder / "example.json").write_text(json.dumps(infer_body(*example)))
    facts = {
        "format": 1,
        "loader": "model-class",
        "entry": f"model:{entry}",
        "model": "sum",
        "python": "3.11",
        "environment_digest": hashlib.sha256(LOCK).hexdigest(),
    }
    (folder / "modelyard.json").write_text(json.dumps(facts))
    return folder


def spec(bundle: Path, version: str = "3") -> ModelServerSpec:
    """Return what to serve a bundle with in this environment."""
    return ModelServerSpec(Path(sys.executable), bundle, "sum", version)


async def until(holds: Callable[[], bool], *, within: float = 20) -> None:
    """Wait until something holds; TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - what holds is outside of this process
            await asyncio.sleep(0.01)


def free_port() -> int:
    """Return a port that is free on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
