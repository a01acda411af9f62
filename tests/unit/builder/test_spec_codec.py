"""What a build order may not say, and what lists leave out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from modelyard.builder.v1 import build_pb2, build_service_pb2

from services.builder import codec, spec_codec
from services.builder.domain import Build, Delegation
from services.common.errors import ServiceError
from services.common.names import BuildName

SOURCE = "projects/shop/artifacts/" + "a" * 64
GIT = "https://git.example/team/churn.git"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "git@git.example:team/churn.git",
        "ssh://git@git.example/churn.git",
        "file:///etc",
        "ext::sh -c id",
        "https://",
        "https://user:token@git.example/churn.git",
        "https://token@git.example/churn.git",
        "https://git.example/churn.git?token=x",
        "https://git.example/churn.git#x",
        "https://git.example/a b",
        "https://[::1/x",
    ],
)
def test_urls_that_no_worker_fetches(url: str) -> None:
    with pytest.raises(ServiceError) as caught:
        spec_codec.spec(build_pb2.BuildSpec(git=build_pb2.GitSource(url=url)), "shop")
    assert caught.value.metadata["field"] == "build.spec.git.url"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (build_pb2.BuildSpec(), "source"),
        (build_pb2.BuildSpec(source=SOURCE, git=build_pb2.GitSource(url=GIT)), "source"),
        (build_pb2.BuildSpec(git=build_pb2.GitSource(url=GIT, ref="--upload-pack=x")), "git.ref"),
        (build_pb2.BuildSpec(git=build_pb2.GitSource(url=GIT, ref="a..b")), "git.ref"),
        (
            build_pb2.BuildSpec(git=build_pb2.GitSource(url=GIT, subdirectory="../x")),
            "git.subdirectory",
        ),
        (build_pb2.BuildSpec(source=SOURCE, requirements="/etc/passwd"), "requirements"),
        (build_pb2.BuildSpec(source=SOURCE, variables={"MODELYARD_X": "1"}), "variables"),
        (build_pb2.BuildSpec(source=SOURCE, variables={"A B": "1"}), "variables"),
        (
            build_pb2.BuildSpec(
                source=SOURCE,
                variables={"TOKEN": "1"},
                secrets=[
                    build_pb2.SecretVariable(variable="TOKEN", secret="projects/shop/secrets/t")
                ],
            ),
            "secrets",
        ),
        (
            build_pb2.BuildSpec(
                source=SOURCE,
                secrets=[
                    build_pb2.SecretVariable(variable="TOKEN", secret="projects/other/secrets/t")
                ],
            ),
            "secrets.secret",
        ),
    ],
)
def test_orders_that_are_refused(spec: build_pb2.BuildSpec, field: str) -> None:
    with pytest.raises(ServiceError) as caught:
        spec_codec.spec(spec, "shop")
    assert caught.value.metadata["field"] == f"build.spec.{field}"


def test_lists_leave_differences_out() -> None:
    origin = build_pb2.SourceOrigin(commit="c" * 40, dirty=True, diff="+x")
    spec = spec_codec.spec(build_pb2.BuildSpec(source=SOURCE, origin=origin), "shop")
    name = BuildName("shop", "b-1")
    found = Build(name, "projects/shop/models/churn", spec, "user:ada", NOW, Delegation("x", NOW))
    (listed,) = codec.page(build_service_pb2.ListBuildsRequest(), [found], 10).builds
    assert (listed.spec.origin.commit, listed.spec.origin.diff) == ("c" * 40, "")
    assert codec.build(found).spec.origin.diff == "+x"
    assert (codec.build(found).origin.dirty, codec.build(found).origin.diff) == (True, "")
