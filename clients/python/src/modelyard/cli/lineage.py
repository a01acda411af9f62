"""`modelyard lineage` and `watch`: where things come from, and what becomes of them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.options import Filter
from modelyard.cli.render import clean, console, json_of, moment, show_one, state

if TYPE_CHECKING:
    from rich.tree import Tree

    from modelyard.metadata.v1.lineage_service_pb2 import GetLineageResponse, LineageNode


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(lineage)
    app.command()(watch)


def lineage(
    name: Annotated[str, typer.Argument(help="churn/7, churn@production, datasets/customers/3 …")],
    upstream: Annotated[bool, typer.Option(help="Only what it came from.")] = False,
    downstream: Annotated[bool, typer.Option(help="Only what came of it.")] = False,
    past: Annotated[bool, typer.Option(help="Also deployments that ended.")] = False,
) -> None:
    """Show what something came from and what came of it, up to what is live."""
    direction: Any = "both"
    if upstream != downstream:
        direction = "upstream" if upstream else "downstream"
    found = client().lineage.trace(name, direction=direction, include_past=past)
    if as_json():
        show_one(found, {})
        return
    _show_graph(found)


def watch(
    model: Annotated[str, typer.Argument(help="A model; else all of them.")] = "",
    runs: Annotated[bool, typer.Option(help="Changes of runs instead.")] = False,
    filter_: Filter = "",
    cursor: Annotated[str, typer.Option(help="Go on after the change that had it.")] = "",
) -> None:
    """Show what changes as it changes, until Ctrl-C; with -o json a line of JSON a change."""
    from modelyard.metadata.v1 import model_service_pb2, run_service_pb2  # noqa: PLC0415

    changes = client().changes
    follow: Any = changes.runs if runs else changes.models
    cursor = cursor or changes.cursor(runs=runs)  # a stream would look for a server for minutes
    types: Any = run_service_pb2.RunChangeType if runs else model_service_pb2.ModelChangeType
    for change in follow(model or None, filter=filter_, cursor=cursor):
        if as_json():
            print(json_of(change, indent=None), flush=True)
            continue
        word = state(types, change.type).replace("_", " ").lower()
        where = _short(change.new_version) if not runs and change.new_version else ""
        line = f"{moment(change.change_time)}  {word}  {_short(change.name)}"
        print(clean(f"{line}{' → ' if where else ''}{where}  {change.actor}"), flush=True)


def _show_graph(found: GetLineageResponse) -> None:
    """Write a tree each way from where the graph begins."""
    nodes = {node.name: node for node in found.nodes}
    down: dict[str, list[tuple[str, str]]] = defaultdict(list)
    up: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for edge in found.edges:
        down[edge.source].append((edge.relation, edge.target))
        up[edge.target].append((edge.relation, edge.source))
    begin = found.nodes[0].name
    for title, edges in (("came from", up), ("led to", down)):
        if edges[begin]:
            console().print(_tree(begin, f"{title}:", nodes, edges))
    if not found.edges:
        console().print(_label(found.nodes[0], ""))
    if found.truncated:
        console().print("… and more than is shown")


def _tree(
    begin: str,
    title: str,
    nodes: dict[str, LineageNode],
    edges: dict[str, list[tuple[str, str]]],
) -> Tree:
    from rich.tree import Tree  # noqa: PLC0415

    tree = Tree(_label(nodes[begin], title))
    shown = {begin}
    waiting = [(begin, tree)]
    while waiting:
        name, branch = waiting.pop()
        for relation, other in edges[name]:
            child = branch.add(_label(nodes[other], relation))
            if other not in shown:
                shown.add(other)
                waiting.append((other, child))
    return tree


def _label(node: LineageNode, relation: str) -> Any:
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    if relation:
        text.append(f"{clean(relation)}  ", "dim")
    text.append(clean(_short(node.name)), "bold")
    if node.state:
        text.append(f"  {node.state}", "green" if node.state in {"LIVE", "READY"} else "dim")
    if node.title:
        text.append(f"  {clean(node.title)}", "dim")
    return text


def _short(name: str) -> str:
    """Return a name without its project, and a version's without its collections."""
    parts = name.split("/")[2:]
    if parts[:1] == ["models"] and parts[2:3] == ["versions"]:
        return f"{parts[1]}/{parts[3]}"
    if parts[:1] == ["models"] and parts[2:3] == ["aliases"]:
        return f"{parts[1]}@{parts[3]}"
    return "/".join(parts)
