"""Where images may be pushed to, and what a registry that is not there comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard import images, registries
from modelyard.registries import RegistryError, Target

from tests.servers.processes import free_port
from tests.unit.client.test_images import facts, own_layers


@pytest.mark.parametrize(
    ("text", "parts", "is_local"),
    [
        ("localhost:5000/team/churn:7", ("localhost:5000", "team/churn", "7"), True),
        ("127.0.0.3:5000/churn", ("127.0.0.3:5000", "churn", "latest"), True),
        ("registry.example/a/b__c-d:v1.0_x", ("registry.example", "a/b__c-d", "v1.0_x"), False),
        ("127.0.0.1.example/churn", ("127.0.0.1.example", "churn", "latest"), False),
    ],
)
def test_a_target_is_read(text: str, parts: tuple[str, str, str], is_local: bool) -> None:
    target = Target.parse(text)
    assert (target.registry, target.repository, target.tag) == parts
    assert target.is_local is is_local


@pytest.mark.parametrize(
    "text",
    [
        *("", "churn", "team/churn:7", "registry.example", "registry.example/", "a.b/Churn"),
        *("a.b/churn@sha256:" + "0" * 64, "a.b/churn:", "user:word@a.b/churn", "a.b/../churn"),
        *("https://a.b/churn", "a.b/churn:7?x=1", "a.b/churn\n", f"a.b/{'c' * 600}"),
    ],
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no registry/repository:tag"):
        Target.parse(text)


def test_a_registry_that_is_not_there_is_asked_again_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "FIRST_DELAY", 0.0)
    images.write_image(tmp_path / "image", facts(), own_layers(tmp_path))
    target = Target(f"127.0.0.1:{free_port()}", "churn")
    with pytest.raises(RegistryError, match=f"{target.registry} cannot be reached") as raised:
        registries.push(tmp_path / "image", target)
    assert raised.value.passing
