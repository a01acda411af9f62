"""`modelyard login` and `init`: a configured client, and a model to begin with."""

from __future__ import annotations

import keyword
import os
import sys
from collections.abc import Mapping
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
    *,
    token: Annotated[
        str,
        typer.Option(help="Your token, or that of an OIDC issuer; else it is read, or asked for."),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file that holds the token; it is read anew each time."),
    ] = None,
    issuer: Annotated[
        str, typer.Option(help="Sign in at this OIDC issuer, on any device with a browser.")
    ] = "",
    client_id: Annotated[
        str, typer.Option(help="What the issuer knows the command line by.")
    ] = "modelyard",
    root_certificates: Annotated[
        Path | None, typer.Option(help="A PEM file of the suite's certificate authority.")
    ] = None,
) -> None:
    """Check a token against a suite and remember both, and the --project."""
    from modelyard import Client  # noqa: PLC0415

    if issuer:
        token = _sign_in(issuer, client_id)
    elif token_file is None and not token:
        token = _asked()
    project = chosen_project() or "default"
    secret = _secret(token_file) if token_file else token
    client = Client(server, token=secret, project=project, root_certificates=root_certificates)
    identity = client.tokens.introspect()
    kept = {
        "server": server,
        "token": "" if token_file else token,
        "token_file": str(token_file.absolute()) if token_file else "",
        "project": project,
        "root_certificates": str(root_certificates.absolute()) if root_certificates else "",
    }
    path = _remember(kept)
    show_one(identity, {"logged in as": identity.principal, "server": server, "written": str(path)})


def _sign_in(issuer: str, client_id: str) -> str:
    from modelyard.cli.device import sign_in  # noqa: PLC0415

    def tell(address: str, code: str) -> None:
        typer.echo(f"Open {address} and enter the code {code}", err=True)

    return sign_in(issuer, client_id, tell=tell)


def _asked() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True))
    return sys.stdin.read().strip()


def _secret(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as problem:
        message = f"cannot read {path}: {problem}"
        raise InvalidArgumentError(message, reason="INVALID_FIELD") from None


def _remember(values: Mapping[str, str]) -> Path:
    """Write the configuration file, for its owner's eyes only."""
    from modelyard._transport.config import config_path  # noqa: PLC0415

    path = config_path(os.environ)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("".join(f"{key} = {_quoted(text)}\n" for key, text in values.items() if text))
    return path


def init(folder: Path) -> None:
    """Make a folder with a small model that builds as it is."""
    if folder.exists() and any(folder.iterdir()):
        raise InvalidArgumentError(f"{folder} is not empty", reason="INVALID_FIELD")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(part.capitalize() for part in folder.resolve().name.split("-"))
    name = name if name.isidentifier() and not keyword.iskeyword(name) else "Example"
    (folder / "model.py").write_text(MODEL.format(name=name))
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "test_model.py").write_text(TEST.format(name=name))
    print(f"{folder}: now run `modelyard build {folder}`")


def _quoted(value: str) -> str:
    import json  # noqa: PLC0415

    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML string
