"""`modelyard login` and `init`: a configured client, and a model to begin with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.context import chosen_project
from modelyard.cli.render import show_one
from modelyard.errors import InvalidArgumentError

MODEL = '''"""A model: `build` trains it, `predict` answers."""

import modelyard
import numpy as np


class {name}(modelyard.Model):
    """Predict the mean of what was seen."""

    example = {{"x": np.array([[1.0], [2.0]])}}

    def build(self, context):
        values = np.array([1.0, 2.0, 3.0]) * context.params.get("scale", 1.0)
        self.mean = float(values.mean())
        modelyard.log_metric("mean", self.mean, step=0)

    def predict(self, inputs):
        return {{"mean": np.full(len(inputs["x"]), self.mean)}}
'''
TEST = '''"""The build runs these in its test phase."""

import model


def test_the_example_has_rows():
    assert len(model.{name}.example["x"]) == 2
'''


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(login)
    app.command()(init)


def login(
    server: Annotated[str, typer.Argument(help="The suite's address, host:port.")],
    token: Annotated[str, typer.Option(prompt=True, hide_input=True, help="Your token.")],
) -> None:
    """Check a token against a suite and remember both, and the --project."""
    from modelyard import Client  # noqa: PLC0415
    from modelyard._config import config_path  # noqa: PLC0415

    project = chosen_project() or "default"
    identity = Client(server, token=token, project=project).tokens.introspect()
    path = config_path(os.environ)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(
        "".join(
            f"{key} = {_quoted(value)}\n"
            for key, value in (("server", server), ("token", token), ("project", project))
        )
    )
    show_one(identity, {"logged in as": identity.principal, "server": server, "written": str(path)})


def init(folder: Path) -> None:
    """Make a folder with a small model that builds as it is."""
    if folder.exists() and any(folder.iterdir()):
        raise InvalidArgumentError(f"{folder} is not empty", reason="INVALID_FIELD")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(part.capitalize() for part in folder.resolve().name.split("-"))
    name = name if name.isidentifier() else "Example"
    (folder / "model.py").write_text(MODEL.format(name=name))
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "test_model.py").write_text(TEST.format(name=name))
    print(f"{folder}: now run `modelyard build {folder}`")


def _quoted(value: str) -> str:
    import json  # noqa: PLC0415

    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML string
