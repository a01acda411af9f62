"""The source's own tests: a build runs them before its version can exist."""

from pathlib import Path

import numpy as np
import pytest
from model import Diabetes
from modelyard import Context


@pytest.fixture(scope="module")
def model() -> Diabetes:
    trained = Diabetes()
    trained.build(Context({"rounds": 30}))
    return trained


def test_it_predicts_a_plausible_progression(model: Diabetes) -> None:
    found = model.predict(Diabetes.example)["progression"]
    assert found.shape == (2,)
    assert ((found > 20) & (found < 350)).all()


def test_what_is_loaded_predicts_the_same(model: Diabetes, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = Diabetes()
    again.load(tmp_path)
    before, after = (m.predict(Diabetes.example)["progression"] for m in (model, again))
    assert np.array_equal(before, after)
