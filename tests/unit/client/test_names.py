from __future__ import annotations

import pytest
from modelyard._names import Names, is_artifact
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import version_pb2

NAMES = Names("shop")
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (NAMES.project(), "projects/shop"),
        (NAMES.project("other"), "projects/other"),
        (NAMES.project("projects/other"), "projects/other"),
        (NAMES.model("churn"), "projects/shop/models/churn"),
        (NAMES.model("projects/p/models/churn"), "projects/p/models/churn"),
        (NAMES.model(), "projects/shop/models/-"),
        (NAMES.version("churn/7"), "projects/shop/models/churn/versions/7"),
        (NAMES.version(7, model="churn"), "projects/shop/models/churn/versions/7"),
        (NAMES.target("churn"), "projects/shop/models/churn"),
        (NAMES.target("churn/7"), "projects/shop/models/churn/versions/7"),
        (NAMES.target("churn@production"), "projects/shop/models/churn/aliases/production"),
        (NAMES.target("projects/p/models/m/aliases/a"), "projects/p/models/m/aliases/a"),
        (NAMES.target("projects/p/models/m/versions/3"), "projects/p/models/m/versions/3"),
        (
            NAMES.target(version_pb2.Version(name="projects/p/models/m/versions/3")),
            "projects/p/models/m/versions/3",
        ),
        (NAMES.alias("churn", "production"), "projects/shop/models/churn/aliases/production"),
        (NAMES.alias("churn", "-"), "projects/shop/models/churn/aliases/-"),
        (NAMES.run("churn/r1"), "projects/shop/models/churn/runs/r1"),
        (NAMES.dataset("prices"), "projects/shop/datasets/prices"),
        (NAMES.webhook("audit"), "projects/shop/webhooks/audit"),
        (NAMES.secret("token"), "projects/shop/secrets/token"),
        (NAMES.webhook_delivery("audit/d1"), "projects/shop/webhooks/audit/deliveries/d1"),
        (NAMES.dataset_version("prices/3"), "projects/shop/datasets/prices/versions/3"),
        (NAMES.artifact(DIGEST), f"projects/shop/artifacts/{DIGEST}"),
        (NAMES.build("b-1"), "projects/shop/builds/b-1"),
        (NAMES.environment(), "projects/shop/environments/-"),
        (
            NAMES.deployment("churn", "production"),
            "projects/shop/environments/production/deployments/churn",
        ),
        (NAMES.token("t1"), "tokens/t1"),
        (NAMES.token("tokens/t1"), "tokens/t1"),
    ],
)
def test_short_forms(got: str, wanted: str) -> None:
    assert got == wanted


@pytest.mark.parametrize(
    "text", ["", "Churn", "churn/0", "churn/x", "churn@", "@a", "churn/7/8", "a" * 64, "churn/../x"]
)
def test_what_names_no_version(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        NAMES.target(text)
    assert caught.value.reason == "INVALID_NAME"


def test_what_is_an_artifact() -> None:
    assert is_artifact(DIGEST)
    assert is_artifact(f"projects/p/artifacts/{DIGEST}")
    assert not is_artifact("churn/7")


def test_a_deployment_needs_its_environment() -> None:
    with pytest.raises(InvalidArgumentError, match="environment"):
        NAMES.deployment("churn")
