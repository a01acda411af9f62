"""Handwritten digits, trained with scikit-learn and served by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import modelyard
import numpy as np
import onnxruntime
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 7
MODEL_FILE = "model.onnx"


class Digits(modelyard.Model):
    """Read a digit from an image of 8 by 8 pixels with values from 0 to 16."""

    example = {"pixels": load_digits().data[:2].astype(np.float32)}

    def build(self, context: modelyard.Context) -> None:
        from skl2onnx import to_onnx  # noqa: PLC0415 - what serves needs the runtime alone

        data = load_digits()
        train, test, labels, wanted = train_test_split(
            data.data.astype(np.float32), data.target, test_size=0.3, random_state=SEED
        )
        modelyard.log_dataset("train", (train, labels), source="sklearn:digits")
        network = MLPClassifier(context.param("hidden", 64), max_iter=60, random_state=SEED)
        network.fit(train, labels)
        for step, loss in enumerate(network.loss_curve_):
            modelyard.log_metric("loss", loss, step=step)
        self.graph = to_onnx(network, train[:1], options={"zipmap": False}).SerializeToString()
        self._start()
        found = self.predict({"pixels": test})["digit"]
        modelyard.log_metric("accuracy", accuracy_score(wanted, found))
        modelyard.log_metric("f1", f1_score(wanted, found, average="macro"))

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        digit, probabilities = self.session.run(None, {"X": inputs["pixels"].astype(np.float32)})
        return {"digit": digit, "probabilities": probabilities}

    def save(self, path: Path) -> None:
        (path / MODEL_FILE).write_bytes(self.graph)

    def load(self, path: Path) -> None:
        self.graph = (path / MODEL_FILE).read_bytes()
        self._start()

    def _start(self) -> None:
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(self.graph, providers=providers)
