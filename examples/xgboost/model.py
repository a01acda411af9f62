"""How far diabetes gets within a year, by gradient-boosted trees."""

from __future__ import annotations

from pathlib import Path

import modelyard
import numpy as np
import xgboost
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split

SEED = 7
MODEL_FILE = "model.ubj"


class Diabetes(modelyard.Model):
    """Predict the progression after a year from ten measurements at its start."""

    example = {"measurements": load_diabetes().data[:2].astype(np.float32)}

    def build(self, context: modelyard.Context) -> None:
        data = load_diabetes()
        train, test, progress, wanted = train_test_split(
            data.data, data.target, test_size=0.3, random_state=SEED
        )
        modelyard.log_dataset("train", (train, progress), source="sklearn:diabetes")
        settings = {
            "max_depth": context.param("max_depth", 3),
            "eta": context.param("learning_rate", 0.05),
            "subsample": 0.8,
            "seed": SEED,
            "nthread": 1,  # sums in one order: the same trees each time
        }
        rows = xgboost.DMatrix(train, label=progress)
        self.booster = xgboost.train(settings, rows, context.param("rounds", 120))
        found = self.booster.predict(xgboost.DMatrix(test))
        modelyard.log_metric("rmse", root_mean_squared_error(wanted, found))
        modelyard.log_metric("r2", r2_score(wanted, found))

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"progression": self.booster.predict(xgboost.DMatrix(inputs["measurements"]))}

    def save(self, path: Path) -> None:
        self.booster.save_model(path / MODEL_FILE)

    def load(self, path: Path) -> None:
        self.booster = xgboost.Booster(model_file=path / MODEL_FILE)
