"""The source's own tests: a build runs them before its version can exist."""

import os
from pathlib import Path

import numpy as np
from model import Wine, forward, improve, start


def test_each_step_makes_it_better() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 13))
    kinds = np.arange(30) % 3
    weights = start(rows, hidden=8)
    losses = [improve(weights, rows, kinds, 0.1) for _ in range(20)]
    assert losses == sorted(losses, reverse=True)
    assert np.allclose(forward(weights, rows)[1].sum(axis=1), 1)


def test_what_was_built_holds_no_pickle_and_knows_a_wine() -> None:
    folder = Path(os.environ["MODELYARD_BUNDLE"]) / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["labels.json", "model.safetensors"]
    model = Wine()
    model.load(folder)
    assert model.predict(Wine.example)["grower"][0] == "class_0"
