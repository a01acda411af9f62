"""`log_model`: the model of the active run, or of none, as a registered version."""

# ruff: noqa: A002  # `license` is what the API calls it

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.packing.publish import publish
from modelyard.tracking.start import active_run

if TYPE_CHECKING:
    from modelyard.metadata.v1 import version_pb2


def log_model(
    source: Any,
    *,
    model: str | None = None,
    example: Any = None,
    requirements: Sequence[str] | str | Path | None = None,
    aliases: Sequence[str] = (),
    label: str = "",
    labels: Mapping[str, str] | None = None,
    description: str = "",
    card: str | Path = "",
    license: str = "",
    sign_key: str | Path | None = None,
) -> version_pb2.Version:
    """Register a model as a version, of the active run if there is one, and return it.

    Everything logged before is on the run by then, so that the version takes it over.

    Args:
        source: A `modelyard.Model`; a model of XGBoost, a LightGBM booster, an ONNX model or a
            torch module (with safetensors), each kept in its framework's own format; an estimator
            of scikit-learn, kept by skops if that is installed and knows all its types; anything
            else with `predict(X)`, pickled; or the path of a folder with `modelyard.json` or such
            a model's file (`model.onnx`, `.ubj`, `.txt`, `.skops`, `.pkl`).
        model: Which model it is a version of; the run's own when left out.
        example: Inputs of one request, for the smoke test and the schema.
        requirements: What serving needs, lines or a file; else what this process has imported.
        aliases: Ids of aliases to point to the version.
        label: A unique name of the version, such as `1.4.0`.
        labels: Labels of the version.
        description: For people.
        card: The model card, Markdown, or the `Path` of a file that holds it; else the model
            class's own.
        license: The licence, such as `Apache-2.0`; else the model class's own.
        sign_key: A PEM file with an elliptic-curve private key to sign the version's files with
            (`modelyard[signing]`).

    Raises:
        BundleError: The model cannot be packed; the text says what to do.
        ModelyardError: The server did not take it.
    """
    run = active_run()
    register: Callable[..., version_pb2.Version] = publish if run is None else run.log_model
    return register(
        source,
        model=model,
        example=example,
        requirements=requirements,
        aliases=aliases,
        label=label,
        labels=labels,
        description=description,
        card=card,
        license=license,
        sign_key=sign_key,
    )
