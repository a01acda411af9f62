"""Images pushed to a container registry by a worker and by hand, and pulled by somebody else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard import AsyncClient, UnavailableError, images, registries
from modelyard.builder.v1 import build_pb2
from modelyard.registries import RegistryError

from tests.contract.builder.stack import Stack
from tests.contract.builder.test_worker import ended, events
from tests.contract.builder.yard import write_source
from tests.servers.processes import free_port
from tests.servers.registry import PASSWORD, USER, RegistryServer
from tests.servers.registry_tokens import giving_tokens
from tests.unit.client.test_images import a_base, facts, own_layers

MODEL = """
import modelyard


class Churn(modelyard.Model):
    def build(self, context):
        self.level = 1

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""

# They need docker-registry and skopeo, which .ci/run installs, and the patience of a push.
pytestmark = pytest.mark.slow


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path / "registry")
    server.start()
    yield server
    server.stop()


async def test_an_image_is_pushed_to_a_registry_and_pulled_by_others(
    any_stack: Stack, environments: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    stack = any_stack
    source = write_source(stack.data / "source", model=MODEL)
    wrong = registry.login(tmp_path / "wrong.json", "wrong")
    right = registry.login(tmp_path / "right.json")
    settings = {
        "MODELYARD_WORKER_IMAGE_REPOSITORY": f"{registry.host}/team",
        "MODELYARD_WORKER_IMAGE_AUTH_FILE": str(right),
        "MODELYARD_WORKER_IMAGE_BASE": str(a_base(tmp_path / "base")),
    }
    async with stack.client() as client:
        async with stack.worker(environments=environments, **settings):
            build = await _built(client, source)
            assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
            repository = f"{registry.host}/team/default/churn"
            assert build.image_reference == f"{repository}@{build.image_digest}"
            version = await client.versions.get(build.version)
            assert version.image == build.image_reference
            held = tmp_path / "held"
            await client.images.export(build.version, held)
            _check_pulled(version.image, tmp_path / "pulled", held)
            told = [event.log.text for event in await events(client, build.name)]
            assert f"image pushed as {build.image_reference}" in told
            log = (stack.data / "worker.log").read_text()
            for text in ("\n".join(told), log, await client.versions.provenance(build.version)):
                assert PASSWORD not in text
            again = await client.builds.reproduce(build.version)
            assert not (await ended(client, again.name)).image_reference

        target = f"{registry.host}/by-hand:{build.version.rpartition('/')[2]}"
        with pytest.raises(UnavailableError, match="asks for credentials"):
            await client.images.push(build.version, target)
        reference = await client.images.push(
            build.version, target, auth_file=str(right), record=True
        )
        assert reference == f"{registry.host}/by-hand@{build.image_digest}"
        assert (await client.versions.get(build.version)).image == reference
        _check_pulled(target, tmp_path / "by-hand", held)

        settings["MODELYARD_WORKER_IMAGE_AUTH_FILE"] = str(wrong)
        async with stack.worker(environments=environments, **settings):
            refused = await _built(client, source)
        assert refused.failure.reason == "IMAGE_PUSH_FAILED"
        assert f"{registry.host} refuses to have" in refused.failure.message
        assert len(refused.past_attempts) == 0


async def test_without_a_registry_a_build_says_why_it_failed(
    stack: Stack, environments: Path
) -> None:
    source = write_source(stack.data / "source", model=MODEL)
    host = f"127.0.0.1:{free_port()}"
    settings = {"MODELYARD_WORKER_IMAGE_REPOSITORY": f"{host}/team"}
    async with stack.client() as client:
        async with stack.worker(environments=environments, **settings):
            build = await _built(client, source)
        assert build.failure.reason == "IMAGE_PUSH_FAILED"
        assert f"{host} cannot be reached" in build.failure.message
        assert not build.version


def test_a_push_outlives_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large images on slow lines do: here, between any two parts a token's life ends."""
    monkeypatch.setattr(registries, "ATTEMPTS", 1)
    held = tmp_path / "held"
    images.write_image(
        held, facts(), own_layers(tmp_path), images.read_base(a_base(tmp_path / "base"), "amd64")
    )
    with giving_tokens(tmp_path, USER, PASSWORD) as tokens:
        registry = RegistryServer(tmp_path / "registry", tokens)
        registry.start()
        parts = images.parts(held)

        def slowly(_: Path) -> Iterator[tuple[str, int]]:
            yield from parts[:2]
            outlived = tokens.last
            deadline = time.monotonic() + 60
            while registry.takes(outlived):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield from parts[2:]

        try:
            target = registries.Target(registry.host, "team/churn", "7")
            wrong, right = (
                registry.login(tmp_path / "wrong", "wrong"),
                registry.login(tmp_path / "right"),
            )
            with pytest.raises(RegistryError, match="asks for credentials"):
                registries.push(held, target)
            with pytest.raises(RegistryError, match="refuses to have"):
                registries.push(held, target, auth_file=wrong)
            monkeypatch.setattr(images, "parts", slowly)
            reference = registries.push(held, target, auth_file=right)
            monkeypatch.undo()
            assert reference == f"{registry.host}/team/churn@{images.manifest_digest(held)}"
            assert set(tokens.scopes) == {"repository:team/churn:pull,push"}
            _check_pulled(str(target), tmp_path / "pulled", held)
        finally:
            registry.stop()


async def _built(client: AsyncClient, source: Path) -> build_pb2.Build:
    order = await client.builds.create(source, model="churn")
    return await ended(client, order.name)


def _check_pulled(image: str, layout: Path, held: Path) -> None:
    """Pull an image with skopeo, and see that it is what the suite holds, byte for byte."""
    login = ("--src-tls-verify=false", "--src-creds", f"{USER}:{PASSWORD}")
    subprocess.run(
        [
            "skopeo",
            "copy",
            "--quiet",
            "--preserve-digests",
            *login,
            f"docker://{image}",
            f"oci:{layout}:pulled",
        ],
        check=True,
        timeout=60,
    )
    digest = images.manifest_digest(layout)
    assert digest == images.manifest_digest(held)
    manifest = json.loads(images.blob(layout, digest).read_bytes())
    assert len(manifest["layers"]) == 3  # the base's, the environment's, the model's
    for part in (manifest["config"], *manifest["layers"]):
        data = images.blob(layout, part["digest"]).read_bytes()
        assert part["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert data == images.blob(held, part["digest"]).read_bytes()
