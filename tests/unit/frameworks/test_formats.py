"""Models of real frameworks: packed in the framework's own format, loaded, the same answers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard import bundle as bundles
from modelyard import loaders
from modelyard.bundle import FILES, Bundle, BundleError, Loader
from modelyard.packing.publish import write_bundle
from modelyard.serving.starting import LoadFailedError, Target, start_engine

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0], [3.0, 2.0]] * 10)
Y = np.array([0, 0, 1, 1] * 10)


def pack(folder: Path, model: Any) -> Bundle:
    return write_bundle(folder, model, name="m", example=X[:2], requirements=["numpy"])


def check(bundle: Bundle, loader: Loader, package: str, wanted: Any) -> None:
    assert bundle.loader is loader
    assert [path.name for path in bundle.model_directory.iterdir()] == [FILES[loader]]
    assert f"\n{package}==" in "\n" + (bundle.directory / bundles.LOCK_FILE).read_text()
    (found,) = loaders.load(bundle).predict({"x": X}).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def classifier() -> Any:
    return importlib.import_module("sklearn.linear_model").LogisticRegression().fit(X, Y)


def onnx_model() -> Any:
    onnx = importlib.import_module("onnx")
    double = onnx.TensorProto.DOUBLE
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceSum", ["features"], ["total"], keepdims=1)],
        "sum",
        [value("features", double, [None, 2])],
        [value("total", double, [1, 1])],
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)


def test_scikit_learn_with_skops(tmp_path: Path) -> None:
    model = classifier()
    check(pack(tmp_path, model), Loader.SKOPS, "skops", model.predict(X))


def test_a_type_that_skops_does_not_trust_is_pickled(tmp_path: Path) -> None:
    preprocessing = importlib.import_module("sklearn.preprocessing")
    pipeline = importlib.import_module("sklearn.pipeline")
    odd = preprocessing.FunctionTransformer(json.dumps)
    bundle = pack(tmp_path, pipeline.make_pipeline(odd, classifier()))
    assert bundle.loader is Loader.SKLEARN
    assert [path.name for path in bundle.model_directory.iterdir()] == ["model.pkl"]


@pytest.mark.parametrize("kind", ["Booster", "XGBClassifier"])
def test_xgboost(tmp_path: Path, kind: str) -> None:
    xgboost = importlib.import_module("xgboost")
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(X, Y)
    wanted = model.predict(X)
    if kind == "Booster":
        model = model.get_booster()
        wanted = model.predict(xgboost.DMatrix(X))
    bundle = pack(tmp_path, model)
    assert bundle.entry == kind
    check(bundle, Loader.XGBOOST, "xgboost-cpu", wanted)


def test_lightgbm(tmp_path: Path) -> None:
    lightgbm = importlib.import_module("lightgbm")
    settings = {"min_data_in_leaf": 1, "verbose": -1, "objective": "binary", "num_threads": 1}
    model = lightgbm.train(settings, lightgbm.Dataset(X, Y), 3)
    check(pack(tmp_path, model), Loader.LIGHTGBM, "lightgbm", model.predict(X))


def test_onnx(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "of an object", onnx_model())
    check(bundle, Loader.ONNX, "onnxruntime", [[X.sum()]])
    folder = write_bundle(
        tmp_path / "of a folder", bundle.model_directory, name="m", requirements=[]
    )
    assert folder.loader is Loader.ONNX
    assert list(loaders.load(folder).predict({"x": X})) == ["total"]


def test_a_server_that_refuses_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safe = pack(tmp_path / "safe", classifier())
    model = classifier()
    unsafe = tmp_path / "unsafe"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pack(unsafe, model).loader is Loader.SKLEARN
    start_engine(Target(unsafe, "m", "1"))
    monkeypatch.setenv("MODELYARD_SERVING_UNSAFE_FORMATS", "refuse")
    start_engine(Target(safe.directory, "m", "1"))
    with pytest.raises(LoadFailedError) as caught:
        start_engine(Target(unsafe, "m", "1"))
    assert isinstance(caught.value.__cause__, BundleError)
    assert "sklearn" in str(caught.value.__cause__)
    monkeypatch.delenv("MODELYARD_SERVING_UNSAFE_FORMATS")
    start_engine(Target(unsafe, "m", "1"))
