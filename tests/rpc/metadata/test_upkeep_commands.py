"""Commands that mind versions, aliases and projects, before real services."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from modelyard import Client, FailedPreconditionError

from tests.rpc.metadata.conftest import Command, until, use


@pytest.fixture
def kept(client: Client, artifact: str, request: pytest.FixtureRequest) -> str:
    """A model of two versions, the first of which is production; its id."""
    model = "-".join(re.findall("[a-z]+", request.node.name))[-60:]
    client.versions.create(model, artifact, aliases=["production"])
    client.versions.create(model, artifact)
    return str(model)


def test_versions_are_minded(kept: str, command: Command, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# What it is for\n")
    version = f"{kept}/2"
    edits = ("--description", "better", "--license", "MIT", "--card", str(card), "--label", "a=b")
    for arguments, shown, then in (
        (("update", version, *edits), version, ("better", "MIT", "# What it is for", "a=b")),
        (("archive", version), "archived  2", ("archived 2",)),
        (("unarchive", version), version, ("better",)),
        (("delete", version), "deleted   2", ("deleted 2",)),
        (("restore", version), version, ("READY",)),
    ):
        assert shown in command("versions", *arguments)
        told = command("versions", "show", f"projects/default/models/{kept}/versions/2")
        told = re.sub(" +", " ", told)
        for words in then:
            assert words in told, arguments
    assert "WRONG_STATE" in command("versions", "purge", version, status=1)
    command("versions", "delete", version)
    listed = json.loads(command("versions", "list", kept, "-o", "json"))
    assert [found["name"][-1] for found in listed] == ["1"]
    every = json.loads(command("versions", "list", kept, "--deleted", "-o", "json"))
    assert [found["name"][-1] for found in every] == ["2", "1"]
    assert version in command("versions", "purge", version)
    assert "does not exist" in command("versions", "show", version, status=1)


@pytest.mark.parametrize("what", ["archive", "delete"])
def test_refusals_name_who_holds_a_version(
    kept: str, client: Client, command: Command, what: str
) -> None:
    version = f"{kept}/1"
    aliased = command("versions", what, version, status=1)
    assert f"{kept}/aliases/production" in aliased
    client.aliases.set(kept, "production", version=2)
    user = use(client, version)
    assert user in command("versions", what, version, status=1)
    with pytest.raises(FailedPreconditionError) as refused:
        getattr(client.versions, what)(version)
    assert user in refused.value.metadata.values()
    use(client, version, ends=True)
    command("versions", what, version)


def test_what_an_alias_was_is_told(kept: str, client: Client, command: Command) -> None:
    then = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    until(lambda: datetime.now(UTC) > then)  # a moment is said to the second
    client.aliases.set(kept, "production", version=2, if_version=1, reason="beats 1")
    assert f"{kept}/2" in command("aliases", "show", kept, "production")
    second = f"{then:%Y-%m-%dT%H:%M:%S}"
    for moment, answer in ((second, f"{kept}/1"), (f"{second}Z", f"{kept}/1")):
        assert answer in command("aliases", "show", kept, "production", "--as-of", moment)
    before = ("--as-of", "2020-05-01T12:00")
    assert "pointed nowhere" in command("aliases", "show", kept, "production", *before, status=1)
    odd = command("aliases", "show", f"{kept}@production", "--as-of", "yesterday", status=2)
    assert "2026-05-01T12:00" in odd
    assert "beats 1" in command("aliases", "history", kept, "production")
    assert "beats 1" in command("aliases", "history", f"{kept}@production")
    assert "production" in command("aliases", "list", kept)
    command("aliases", "delete", f"{kept}@production", "--reason", "over")
    assert "over" in command("aliases", "history", kept)
    assert "does not exist" in command("aliases", "show", kept, "production", status=1)


def test_models_are_minded(kept: str, client: Client, command: Command) -> None:
    told = command("models", "update", kept, "--maximize", "f1", "--label", "team=risk")
    assert "f1 up" in told
    assert "team=risk" in told
    both = command("models", "update", kept, "--minimize", "loss", "--name", "Churn")
    assert "f1 up, loss down" in both
    assert "not key=value" in command("models", "update", kept, "--label", "team", status=2)
    assert f"{kept}/aliases/production" in command("models", "delete", kept, status=1)
    client.aliases.delete(kept, "production")
    assert "WRONG_STATE" in command("models", "purge", kept, status=1)
    assert "deleted" in command("models", "delete", kept)
    assert kept not in command("models", "list")
    assert kept in command("models", "list", "--deleted")
    assert "restore it first" in command("promote", f"{kept}/1", "production", status=1)
    assert "deleted" not in command("models", "restore", kept)
    client.models.delete(kept)
    command("models", "purge", kept)
    assert "does not exist" in command("models", "show", kept, status=1)


def test_projects_are_minded(command: Command) -> None:
    for arguments, shown in (
        (("create", "shop", "--description", "d", "--protect", "production"), "production"),
        (("update", "shop", "--description", "other"), "other"),
        (("show", "shop"), "production"),
        (("update", "shop", "--protect", ""), "none"),
        (("list",), "shop"),
    ):
        assert shown in command("projects", *arguments), arguments
    assert "RESOURCE_EXISTS" in command("projects", "create", "shop", status=1)
    assert "WRONG_STATE" in command("projects", "purge", "shop", status=1)
    assert "deleted" in command("projects", "delete", "shop")
    assert "shop" not in command("projects", "list")
    assert "shop" in command("projects", "list", "--deleted")
    assert "deleted" not in command("projects", "restore", "shop")
    command("projects", "delete", "shop")
    command("projects", "purge", "shop")
    assert "never given out again" in command("projects", "create", "shop", status=1)
