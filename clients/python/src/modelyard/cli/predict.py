"""`modelyard predict`: ask a live model, over the Open Inference Protocol."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from modelyard.cli.context import client
from modelyard.cli.render import leaf, write_json
from modelyard.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError

TIMEOUT = 30.0
EXAMPLE = "example.json"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(predict)


def predict(
    model: str,
    environment: Annotated[str, typer.Option("--env", "-e", help="The environment.")],
    data: Annotated[
        str, typer.Option(help="A request as JSON, '-' for standard input; else the example.")
    ] = "",
) -> None:
    """Ask the live version of a model for a prediction."""
    connection = client()
    found = connection.environments.get(environment)
    if not found.address:
        raise FailedPreconditionError(
            f"nothing is served in {leaf(found.name)} yet; deploy a version first",
            reason="WRONG_STATE",
        )
    if not data:
        live = connection.deployments.get(model, environment=environment)
        version = next(r.version for r in live.revisions if r.number == live.live_revision)
        data = connection.artifacts.read(version, EXAMPLE).decode()
    write_json(ask(found.address, model, sys.stdin.read() if data == "-" else data))


def ask(address: str, model: str, body: str) -> Any:
    """Send an inference request over HTTP and return the answer."""
    import urllib.error  # noqa: PLC0415 - slow to import
    import urllib.request  # noqa: PLC0415

    request = urllib.request.Request(
        f"http://{address}/v2/models/{model}/infer",
        data=body.encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - see above
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")[:1_000]
        raise InvalidArgumentError(f"{error.code}: {text}", reason="PREDICTION_REFUSED") from None
    except OSError as error:
        raise UnavailableError(
            f"{address} does not answer: {error}", reason="SERVICE_UNAVAILABLE"
        ) from None
