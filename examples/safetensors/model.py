"""Kinds of wine, by a network in plain numpy whose weights are kept as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import modelyard
import numpy as np
from safetensors.numpy import load_file, save_file

SEED = 7
WEIGHTS_FILE = "model.safetensors"
LABELS_FILE = "labels.json"


class Wine(modelyard.Model):
    """Tell which of three growers a wine is from by thirteen measurements."""

    example = {"wine": np.array([[13.2, 1.8, 2.1, 11, 100, 2.6, 2.8, 0.3, 1.3, 4.4, 1, 3.4, 1050]])}

    def build(self, context: modelyard.Context) -> None:
        from sklearn.datasets import load_wine  # noqa: PLC0415 - only training needs it
        from sklearn.model_selection import train_test_split  # noqa: PLC0415

        data = load_wine()
        self.labels = [str(name) for name in data.target_names]
        train, test, kinds, wanted = train_test_split(
            data.data, data.target, test_size=0.3, random_state=SEED, stratify=data.target
        )
        modelyard.log_dataset("train", (train, kinds), source="sklearn:wine")
        self.weights = start(train, context.param("hidden", 16))
        rate, steps = context.param("learning_rate", 0.5), context.param("steps", 300)
        for step in range(steps):
            loss = improve(self.weights, train, kinds, rate)
            if step % 10 == 0:
                modelyard.log_metric("loss", loss, step=step)
        found = forward(self.weights, test)[1].argmax(axis=1)
        modelyard.log_metric("accuracy", float((found == wanted).mean()))

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        _, chances = forward(self.weights, inputs["wine"])
        names = np.array(self.labels, dtype=object)
        return {"grower": names[chances.argmax(axis=1)], "chances": chances}

    def save(self, path: Path) -> None:
        save_file(self.weights, path / WEIGHTS_FILE)
        (path / LABELS_FILE).write_text(json.dumps(self.labels))

    def load(self, path: Path) -> None:
        self.weights = load_file(path / WEIGHTS_FILE)
        self.labels = json.loads((path / LABELS_FILE).read_text())


def start(rows: np.ndarray, hidden: int) -> dict[str, np.ndarray]:
    """Return the first weights, and how inputs are scaled."""
    random = np.random.default_rng(SEED)
    return {
        "mean": rows.mean(axis=0),
        "scale": rows.std(axis=0),
        "w1": random.normal(size=(rows.shape[1], hidden)) * rows.shape[1] ** -0.5,
        "b1": np.zeros(hidden),
        "w2": random.normal(size=(hidden, 3)) * hidden**-0.5,
        "b2": np.zeros(3),
    }


def forward(weights: dict[str, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden layer and the chances of each kind."""
    scaled = (rows - weights["mean"]) / weights["scale"]
    hidden = np.tanh(scaled @ weights["w1"] + weights["b1"])
    scores = hidden @ weights["w2"] + weights["b2"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def improve(
    weights: dict[str, np.ndarray], rows: np.ndarray, kinds: np.ndarray, rate: float
) -> float:
    """Take one step of gradient descent; return the loss before it."""
    hidden, chances = forward(weights, rows)
    wanted = np.eye(3)[kinds]
    scaled = (rows - weights["mean"]) / weights["scale"]
    slope = (chances - wanted) / len(rows)
    back = (slope @ weights["w2"].T) * (1 - hidden**2)
    for name, change in (
        ("w2", hidden.T @ slope),
        ("b2", slope.sum(axis=0)),
        ("w1", scaled.T @ back),
        ("b1", back.sum(axis=0)),
    ):
        weights[name] -= rate * change
    return float(-np.log(chances[np.arange(len(rows)), kinds]).mean())
