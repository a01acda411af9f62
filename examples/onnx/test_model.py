"""The source's own tests: a build runs them before its version can exist."""

import os
from pathlib import Path

import numpy as np
from model import Digits
from sklearn.datasets import load_digits


def test_the_graph_that_was_built_reads_the_data_it_has_seen() -> None:
    model = Digits()
    model.load(Path(os.environ["MODELYARD_BUNDLE"]) / "model")
    data = load_digits()
    found = model.predict({"pixels": data.data[:200]})
    assert (found["digit"] == data.target[:200]).mean() > 0.95
    assert np.allclose(found["probabilities"].sum(axis=1), 1, atol=1e-4)


def test_the_example_is_of_two_images() -> None:
    assert Digits.example["pixels"].shape == (2, 64)
