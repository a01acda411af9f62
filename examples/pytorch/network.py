"""A small convolutional network for handwritten digits, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 7
SIDE = 8
DARKEST = 16.0


class Digits(nn.Module):
    """From images of 8 by 8 pixels to the log-probabilities of ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 12, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(12 * (SIDE // 2) ** 2, 10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image.float().unsqueeze(1) / DARKEST)


def digits() -> list[np.ndarray]:
    """Return images to learn from and to be tried on, then what they show."""
    data = load_digits()
    images, labels = data.images.astype(np.float32), data.target
    return train_test_split(images, labels, test_size=0.3, random_state=SEED, stratify=labels)


def fit(
    network: Digits,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
    rate: float,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> None:
    """Train on all images at a time; `on_step` hears each step's loss."""
    torch.manual_seed(SEED)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    pixels, wanted = torch.from_numpy(images), torch.from_numpy(labels)
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.nll_loss(network(pixels), wanted)
        loss.backward()
        optimizer.step()
        on_step(step, loss.item())


def accuracy(network: Digits, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        found = network(torch.from_numpy(images)).argmax(dim=1).numpy()
    return float((found == labels).mean())
