"""Bundles written from scripts and objects, and read back."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard import bundle as bundles
from modelyard import loaders
from modelyard.bundle import BundleError, Loader
from modelyard.packing import requirements
from modelyard.packing.examples import infer_request
from modelyard.packing.publish import write_bundle

from tests.unit.bundle.conftest import run_python


class Doubler:
    """What scikit-learn estimators look like from outside."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.feature_names_in_ = np.array(["a", "b"], dtype=object)

    def predict(self, matrix: Any) -> Any:
        return np.asarray(matrix).sum(axis=1) * self.factor


SCRIPT = """
import sys
from pathlib import Path
import modelyard, numpy as np
from beside import shift
from modelyard.packing.publish import write_bundle

class Own:
    pass

class Model(modelyard.Model):
    example = {{"x": np.array([1.0])}}
    def predict(self, inputs):
        return shift(inputs["x"]) * self.factor

def main():
    model = Model()
    model.factor = 3.0
    {extra}
    write_bundle(Path("out"), model, name="churn", requirements=["numpy"])

{call}
"""
GUARDED = 'if __name__ == "__main__":\n    main()'


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("def shift(x):\n    return x + 1\n")
    (tmp_path / "unused.py").write_text("raise SystemExit\n")
    (tmp_path / "out").mkdir()
    return tmp_path / "my-train.py"


def test_an_estimator_and_its_own_module_travel(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path, Doubler(2.0), name="m", example=np.ones((2, 2)), requirements=["numpy"]
    )
    assert bundle.loader is Loader.SKLEARN
    assert (tmp_path / "environment" / "requirements.lock").read_text() == (
        f"numpy=={np.__version__}\n"
    )
    assert bundle.example is not None
    assert bundle.example["inputs"][0]["name"] == "input-0"
    predictor = loaders.load(bundle)
    assert predictor.predict({"input-0": np.ones((2, 2))})["output-0"].tolist() == [4.0, 4.0]
    columns = {"b": np.array([1.0, 2.0]), "a": np.array([10.0, 20.0])}
    assert predictor.predict(columns)["output-0"].tolist() == [22.0, 44.0]
    with pytest.raises(ValueError, match="the inputs must be a, b"):
        predictor.predict({"a": columns["a"], "c": columns["b"]})


def test_a_model_class_of_a_script_can_be_loaded_elsewhere(script: Path) -> None:
    script.write_text(SCRIPT.format(extra="", call=GUARDED))
    done = run_python(str(script), cwd=script.parent)
    assert done.returncode == 0, done.stderr
    out = script.parent / "out"
    assert sorted(p.name for p in (out / "code").iterdir()) == ["beside.py", "my_train.py"]
    assert bundles.read(out).entry == "my_train:Model"
    elsewhere = run_python("-m", "modelyard.building.smoke", "--bundle", str(out), cwd=Path("/"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert loaders.load(out).predict({"x": np.array([1.0])})["output-0"].tolist() == [6.0]


def test_a_script_without_a_guard_is_refused(script: Path) -> None:
    script.write_text(SCRIPT.format(extra="", call="main()"))
    done = run_python(str(script), cwd=script.parent)
    assert "put what it runs (line" in done.stderr
    assert "__name__" in done.stderr


def test_state_of_the_scripts_own_classes_is_refused(script: Path) -> None:
    script.write_text(SCRIPT.format(extra="model.own = [Own()]", call=GUARDED))
    done = run_python(str(script), cwd=script.parent)
    assert "the model refers to Own of the script itself" in done.stderr


def test_what_is_installed_does_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation may lie outside of this environment, as uv layers one over another."""
    cache = tmp_path / "cache"
    site = tmp_path / "env" / "lib" / "site-packages"
    cache.mkdir()
    site.mkdir(parents=True)
    (cache / "estimators_of_others.py").write_text(
        "class Constant:\n    def predict(self, x):\n        return [1.0] * len(x)\n"
    )
    (site / "estimators_of_others.py").symlink_to(cache / "estimators_of_others.py")
    monkeypatch.syspath_prepend(site)
    model = importlib.import_module("estimators_of_others").Constant()
    bundle = write_bundle(tmp_path / "out", model, name="m", requirements=["numpy"])
    assert not bundle.code_directory.exists()


def test_folders(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    write_bundle(made, Doubler(2.0), name="m", requirements=["numpy"])
    again = write_bundle(tmp_path / "again", made, name="m")
    assert again.loader is Loader.SKLEARN
    plain = write_bundle(tmp_path / "plain", made / "model", name="m", requirements=["numpy"])
    assert loaders.load(plain).predict({"x": np.ones((1, 2))})["output-0"].tolist() == [4.0]
    with pytest.raises(BundleError, match=r"artifacts\.push"):
        write_bundle(tmp_path / "no", tmp_path / "made" / "environment", name="m")


@pytest.mark.parametrize("model", [object(), lambda x: x])
def test_what_cannot_predict_is_refused(tmp_path: Path, model: object) -> None:
    with pytest.raises(BundleError, match="has no predict method"):
        write_bundle(tmp_path, model, name="m", requirements=[])


def test_outputs_get_names() -> None:
    one, two = np.ones(2), np.zeros(3)
    assert list(bundles.normalise_outputs(one)) == ["output-0"]
    assert list(bundles.normalise_outputs((one, two))) == ["output-0", "output-1"]
    assert list(bundles.normalise_outputs({"p": one})) == ["p"]
    assert bundles.normalise_outputs([1.5, 2.5])["output-0"].shape == (2,)


def test_examples_become_infer_requests() -> None:
    request = infer_request({"n": np.array([1], dtype=np.int8), "t": np.array(["a", "ü"])})
    assert request["inputs"] == [
        {"name": "n", "shape": [1], "datatype": "INT8", "data": [1]},
        {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "ü"]},
    ]
    with pytest.raises(BundleError, match="holds NaN"):
        infer_request(np.array([np.nan]))
    with pytest.raises(BundleError, match="datatype"):
        infer_request(np.array([1j]))


def test_requirements_are_pinned(tmp_path: Path) -> None:
    lines = [
        "# what we need",
        "NumPy>=1.0  # any",
        "left_pad == 1.2.0 ; python_version > '3'",
        "modelyard",
        "",
    ]
    file = tmp_path / "requirements.txt"
    file.write_text("\n".join(lines))
    expected = f"left-pad==1.2.0\nnumpy=={np.__version__}\n".encode()
    assert requirements.lock_of(lines) == expected
    assert requirements.lock_of(file) == expected
    for bad in (["-r other.txt"], ["surely-not-installed>=1"], ["numpy==2.*", "left-pad==1.*"]):
        with pytest.raises(BundleError, match="requirement"):
            requirements.lock_of(bad)


def test_what_was_imported_is_the_default() -> None:
    found = requirements.imported_distributions()
    assert found["numpy"] == np.__version__
    assert not {"modelyard", "grpcio", "protobuf", "modelyard-server"} & set(found)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (None, "is missing"),
        ("[]", "not a JSON object"),
        ("{", "is not JSON"),
        ({"format": 2}, "format must be 1"),
        ({"format": 1, "loader": "magic"}, "loader must be one of"),
        ({"format": 1, "loader": "model-class", "entry": "../x:Y"}, "module:Class"),
        ({"format": 1, "loader": "sklearn", "python": 3}, "python must be text"),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, facts: object, problem: str) -> None:
    if facts is not None:
        text = facts if isinstance(facts, str) else json.dumps(facts)
        (tmp_path / "modelyard.json").write_text(text)
    with pytest.raises(BundleError, match=problem):
        bundles.read(tmp_path)
