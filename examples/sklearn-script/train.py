"""Train outside of the builder: a plain script that logs as it goes and registers a version.

Needs a running suite (`modelyard up`), scikit-learn and modelyard. Afterwards
`modelyard deploy tumours/1 --env ENVIRONMENT` serves what it registered.
"""

from __future__ import annotations

import modelyard
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import train_test_split

PARAMS = {"n_estimators": 60, "learning_rate": 0.1, "max_depth": 2}


def main() -> None:
    data = load_breast_cancer()
    train, test, train_labels, test_labels = train_test_split(
        data.data, data.target, test_size=0.3, random_state=7, stratify=data.target
    )
    with modelyard.start_run("tumours", tags={"team": "examples"}) as run:
        modelyard.log_params(PARAMS)
        modelyard.log_dataset("train", (train, train_labels), source="sklearn:breast_cancer")
        modelyard.log_dataset("test", (test, test_labels), source="sklearn:breast_cancer")
        model = GradientBoostingClassifier(**PARAMS, random_state=7).fit(train, train_labels)
        for step, probabilities in enumerate(model.staged_predict_proba(test)):
            modelyard.log_metric("log_loss", log_loss(test_labels, probabilities), step=step)
        modelyard.log_metric("f1", f1_score(test_labels, model.predict(test)))
        version = modelyard.log_model(model, example=test[:2], aliases=["candidate"])
    print(f"{run.name}\n{version.name}")


if __name__ == "__main__":
    main()
