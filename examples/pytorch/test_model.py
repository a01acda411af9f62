"""The source's own tests: a build runs them before its version can exist."""

import os
from pathlib import Path

import numpy as np
import torch
from model import Reader
from network import Digits, digits, fit


def test_it_learns() -> None:
    images, _, labels, _ = digits()
    losses: list[float] = []
    fit(
        Digits(),
        images[:100],
        labels[:100],
        steps=15,
        rate=0.02,
        on_step=lambda _, x: losses.append(x),
    )
    assert losses[-1] < losses[0] / 2


def test_what_was_built_holds_no_pickle_and_reads_digits() -> None:
    folder = Path(os.environ["MODELYARD_BUNDLE"]) / "model"
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    model = Reader()
    model.load(folder)
    _, images, _, labels = digits()
    answer = model.predict({"image": images})
    assert (answer["digit"] == labels).mean() > 0.9
    assert np.allclose(answer["chances"].sum(axis=1), 1, atol=1e-4)
    assert not torch.is_inference_mode_enabled()
