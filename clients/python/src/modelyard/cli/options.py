"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Filter = Annotated[str, typer.Option("--filter", help="Which ones, e.g. 'metrics.f1 > 0.7'.")]
Order = Annotated[str, typer.Option("--order-by", help="E.g. 'metrics.f1 desc'.")]
