"""A classifier of breast tumours, on the data set that scikit-learn ships."""

from __future__ import annotations

import modelyard
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

SEED = 7


class BreastCancer(modelyard.Model):
    """Tell benign (1) from malignant (0) by thirty measurements."""

    example = {"measurements": load_breast_cancer().data[:2]}

    def build(self, context: modelyard.Context) -> None:
        data = load_breast_cancer()
        train, test, train_labels, test_labels = train_test_split(
            data.data, data.target, test_size=0.3, random_state=SEED, stratify=data.target
        )
        modelyard.log_dataset("train", (train, train_labels), source="sklearn:breast_cancer")
        modelyard.log_dataset("test", (test, test_labels), source="sklearn:breast_cancer")

        algorithm = context.param("algorithm", "forest")
        print(f"training a {algorithm} on {len(train)} rows")
        self.classifier = make_classifier(algorithm, context)
        for step, share in enumerate((0.25, 0.5, 1.0), start=1):
            rows = int(len(train) * share)
            self.classifier.fit(train[:rows], train_labels[:rows])
            probabilities = self.classifier.predict_proba(test)
            labels = probabilities.argmax(axis=1)
            accuracy = accuracy_score(test_labels, labels)
            modelyard.log_metric("accuracy", accuracy, step=step)
            modelyard.log_metric("f1", f1_score(test_labels, labels), step=step)
            modelyard.log_metric("log_loss", log_loss(test_labels, probabilities), step=step)
            print(f"{rows} rows: accuracy {accuracy:.4f}")

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        probabilities = self.classifier.predict_proba(inputs["measurements"])
        return {
            "label": probabilities.argmax(axis=1).astype(np.int64),
            "probability": probabilities[:, 1],
        }


def make_classifier(algorithm: str, context: modelyard.Context):
    """Make the classifier that a build asks for."""
    if algorithm == "stump":
        return DecisionTreeClassifier(max_depth=1, random_state=SEED)
    if algorithm == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(C=context.param("C", 1.0)))
    return RandomForestClassifier(context.param("n_estimators", 100), random_state=SEED)
