"""Handwritten digits by PyTorch, built by the suite; the weights are kept as safetensors."""

from __future__ import annotations

from pathlib import Path

import modelyard
import numpy as np
import torch
from network import Digits, accuracy, digits, fit
from safetensors.torch import load_model, save_model

WEIGHTS_FILE = "model.safetensors"
PRINTED_EVERY = 20


class Reader(modelyard.Model):
    """Read a digit from an image of 8 by 8 pixels, from 0 (white) to 16 (black)."""

    example = {"image": np.tile(np.arange(8, dtype=np.float32), (1, 8, 1))}

    def build(self, context: modelyard.Context) -> None:
        train, test, train_labels, test_labels = digits()
        modelyard.log_dataset("train", (train, train_labels), source="sklearn:digits")
        torch.manual_seed(0)
        self.network = Digits()
        fit(
            self.network,
            *(train, train_labels),
            steps=context.param("steps", 120),
            rate=context.param("learning_rate", 0.02),
            on_step=_log,
        )
        modelyard.log_metric("accuracy", accuracy(self.network, test, test_labels))

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            chances = self.network(torch.from_numpy(inputs["image"])).exp()
        return {"digit": chances.argmax(dim=1).numpy(), "chances": chances.numpy()}

    def save(self, path: Path) -> None:
        save_model(self.network, str(path / WEIGHTS_FILE))

    def load(self, path: Path) -> None:
        self.network = Digits()
        load_model(self.network, path / WEIGHTS_FILE)
        self.network.eval()


def _log(step: int, loss: float) -> None:
    modelyard.log_metric("loss", loss, step=step)
    if step % PRINTED_EVERY == 0:
        print(f"step {step}: loss {loss:.3f}")
