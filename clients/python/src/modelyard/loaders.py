"""Bringing the model in a bundle to life, by the loader that its facts name.

Frameworks come from the model's own environment, each imported only by the bundle that needs it.
Loading a pickle and loading the code of a bundle run what its author wrote; the other formats hold
numbers only.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.bundle import (
    FILES,
    Bundle,
    BundleError,
    Loader,
    Predictor,
    import_entry_module,
    make_importable,
    normalise_outputs,
    read,
)
from modelyard.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelyard.bundle import Tensors

XGBOOST_CLASSES = frozenset(
    {
        "Booster",
        "XGBClassifier",
        "XGBRFClassifier",
        "XGBRFRegressor",
        "XGBRanker",
        "XGBRegressor",
    }
)


def load(bundle: Bundle | str | Path) -> Predictor:
    """Bring a bundle's model to life; what the model's own code raises passes through."""
    found = bundle if isinstance(bundle, Bundle) else read(bundle)
    if found.code_directory.is_dir():
        make_importable(found.code_directory)
    return _LOADERS[found.loader](found)


class _ModelPredictor:
    """A `modelyard.Model` behind the common face."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, inputs: Tensors) -> Tensors:
        return normalise_outputs(self.model.predict(inputs))


class _MatrixPredictor:
    """Anything that predicts from one matrix of features behind the common face."""

    def __init__(self, predict: Callable[[Any], Any], names: Any = None) -> None:
        self._predict = predict
        self._names = None if names is None else [str(name) for name in names]

    def predict(self, inputs: Tensors) -> Tensors:
        return normalise_outputs(self._predict(self._matrix(inputs)))

    def _matrix(self, inputs: Tensors) -> Any:
        """Return the one input as it is, or several as the columns that the model was fitted on."""
        if len(inputs) == 1:
            return next(iter(inputs.values()))
        names = self._names or list(inputs)
        if set(names) != set(inputs):
            raise ValueError(f"the inputs must be {', '.join(names)}")
        columns = {name: _column(inputs[name]) for name in names}
        try:
            import pandas as pd  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415
        except ModuleNotFoundError:
            import numpy as np  # noqa: PLC0415 - the tracking side runs without numpy

            return np.column_stack(list(columns.values()))
        return pd.DataFrame(columns)


class _OnnxPredictor:
    """A session of ONNX Runtime behind the common face; its inputs and outputs have names."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]

    def predict(self, inputs: Tensors) -> Tensors:
        given = dict(inputs)
        if len(given) == len(self._names) == 1:
            given = {self._names[0]: next(iter(given.values()))}
        answers = self._session.run(self._outputs, given)
        return normalise_outputs(dict(zip(self._outputs, answers, strict=True)))


class _TorchPredictor:
    """A `torch.nn.Module` behind the common face: one input by place, several by name."""

    def __init__(self, module: Any, torch: Any) -> None:
        self._module = module
        self._torch = torch

    def predict(self, inputs: Tensors) -> Tensors:
        given = {name: self._torch.from_numpy(array) for name, array in inputs.items()}
        with self._torch.inference_mode():
            alone = len(given) == 1
            answer = self._module(*given.values()) if alone else self._module(**given)
        if isinstance(answer, Mapping):
            return normalise_outputs({name: value.numpy() for name, value in answer.items()})
        if isinstance(answer, tuple):
            return normalise_outputs(tuple(value.numpy() for value in answer))
        return normalise_outputs(answer.numpy())


def _model_class(bundle: Bundle) -> Predictor:
    found = _entry(bundle)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise BundleError(f"{bundle.entry} is not a modelyard.Model")
    model = found()
    model.load(bundle.model_directory)
    return _ModelPredictor(model)


def _pickle(bundle: Bundle) -> Predictor:
    with _file(bundle).open("rb") as file:
        return _estimator(pickle.load(file))  # noqa: S301 - see the module's docstring


def _skops(bundle: Bundle) -> Predictor:
    # Its own types and those of scikit-learn, numpy and scipy, nothing that a file asks for.
    return _estimator(importlib.import_module("skops.io").load(_file(bundle), trusted=[]))


def _xgboost(bundle: Bundle) -> Predictor:
    if bundle.entry not in XGBOOST_CLASSES:
        raise BundleError(f"entry must be one of {', '.join(sorted(XGBOOST_CLASSES))}")
    xgboost = importlib.import_module("xgboost")
    model = getattr(xgboost, bundle.entry)()
    model.load_model(_file(bundle))
    if bundle.entry != "Booster":
        return _estimator(model)
    names = model.feature_names
    return _MatrixPredictor(
        lambda matrix: model.predict(xgboost.DMatrix(matrix, feature_names=names)), names
    )


def _lightgbm(bundle: Bundle) -> Predictor:
    model = importlib.import_module("lightgbm").Booster(model_file=str(_file(bundle)))
    return _MatrixPredictor(model.predict, model.feature_name())


def _onnx(bundle: Bundle) -> Predictor:
    runtime = importlib.import_module("onnxruntime")
    providers = runtime.get_available_providers()
    return _OnnxPredictor(runtime.InferenceSession(_file(bundle), providers=providers))


def _torch(bundle: Bundle) -> Predictor:
    torch = importlib.import_module("torch")
    found = _entry(bundle)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise BundleError(f"{bundle.entry} is not a torch.nn.Module")
    module = found()
    importlib.import_module("safetensors.torch").load_model(module, _file(bundle))
    return _TorchPredictor(module.eval(), torch)


_LOADERS: dict[Loader, Callable[[Bundle], Predictor]] = {
    Loader.MODEL_CLASS: _model_class,
    Loader.SKLEARN: _pickle,
    Loader.SKOPS: _skops,
    Loader.XGBOOST: _xgboost,
    Loader.LIGHTGBM: _lightgbm,
    Loader.ONNX: _onnx,
    Loader.TORCH: _torch,
}


def _file(bundle: Bundle) -> Any:
    """Return the path of a model's one file."""
    path = bundle.model_directory / FILES[bundle.loader]
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    return path


def _entry(bundle: Bundle) -> Any:
    module_name, _, class_name = bundle.entry.partition(":")
    return getattr(import_entry_module(module_name, bundle.code_directory), class_name, None)


def _estimator(estimator: Any) -> Predictor:
    return _MatrixPredictor(estimator.predict, getattr(estimator, "feature_names_in_", None))


def _column(array: NDArray[Any]) -> NDArray[Any]:
    """Return a column as one dimension, also when it came as n x 1."""
    return array.reshape(-1)
