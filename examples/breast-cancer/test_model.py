"""The source's own tests: a build runs them before its version can exist."""

import numpy as np
import pytest
from model import BreastCancer, make_classifier
from modelyard import Context


@pytest.mark.parametrize("algorithm", ["forest", "stump", "logistic"])
def test_every_algorithm_learns_two_classes(algorithm: str) -> None:
    classifier = make_classifier(algorithm, Context({}))
    classifier.fit(np.array([[0.0], [0.1], [0.9], [1.0]]), np.array([0, 0, 1, 1]))
    assert list(classifier.predict([[0.0], [1.0]])) == [0, 1]


def test_the_example_has_thirty_measurements() -> None:
    assert BreastCancer.example["measurements"].shape[1] == 30
