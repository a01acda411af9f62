"""What a version gets beside its bundle, and whether the same comes of building it again."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]
from modelyard import FailedPreconditionError, InvalidArgumentError, images
from modelyard._evidence import envelope as _envelope
from modelyard.builder.v1 import build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.test_worker import ended
from tests.contract.builder.yard import write_source
from tests.e2e.test_signatures import Keys, make_keys

MODEL = """
import os

import modelyard
import numpy as np


class Churn(modelyard.Model):
    example = {"x": np.ones((2, 3))}

    def build(self, context):
        self.weights = np.random.default_rng(7).random(3)
        modelyard.log_metric("score", float(self.weights.sum()))
        modelyard.log_metric("luck", float.fromhex("0x1p-1") + context.param("lucky", False)
                             * int.from_bytes(os.urandom(2), "big"))

    def predict(self, inputs):
        return {"y": inputs["x"] @ self.weights, "big": inputs["x"] > 1}
"""
TESTS = """
import os

import pytest


def test_good():
    print(os.environ.get("TOKEN", ""))


@pytest.mark.skip
def test_left_out():
    raise AssertionError


def test_told():
    assert os.environ.get("TOKEN") != "s3cret<&>value", os.environ["TOKEN"]
"""
SCHEMA = {
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}],
    "outputs": [
        {"name": "y", "datatype": "FP64", "shape": [-1]},
        {"name": "big", "datatype": "BOOL", "shape": [-1, 3]},
    ],
}


async def test_a_version_has_an_image_evidence_and_comes_again(
    any_stack: Stack, environments: Path, tmp_path: Path
) -> None:
    stack = any_stack
    source = write_source(stack.data / "source", model=MODEL, test_churn=TESTS)
    keys = make_keys(tmp_path / "keys")
    settings = {"MODELYARD_WORKER_SIGNING_KEY_FILE": str(keys.private)}
    async with stack.client() as client, stack.worker(environments=environments, **settings):
        order = await client.builds.create(source, model="churn", aliases=["first"])
        build = await ended(client, order.name)
        assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
        assert build.phases[3].tests == build_pb2.TestCounts(passed_count=2, skipped_count=1)
        assert await client.versions.schema("churn/1") == SCHEMA
        assert "test_left_out" in await client.versions.test_report("churn/1")

        statement = json.loads(await client.versions.provenance("churn/1"))
        Statement.copy_from_pb(ParseDict(statement, statement_pb2.Statement())).validate()
        _check_provenance(statement, build)
        assert json.loads(await client.versions.provenance("churn/1", key=keys.public)) == statement
        _check_envelope(await client.versions.signed_provenance("churn/1"), keys)
        other = make_keys(tmp_path / "others")
        with pytest.raises(FailedPreconditionError, match="not made with this key"):
            await client.versions.provenance("churn/1", key=other.public)
        layout = await client.images.export("churn/1", tmp_path / "image")
        _check_layout(layout, build)
        for companion in (build.image, build.evidence):
            holders = [hold.holder async for hold in client.artifacts.holds(companion)]
            assert holders == [build.version]

        again = await client.builds.reproduce("churn/1")
        found = await client.builds.reproduction(again)
        assert found.is_identical, found
        assert found.build.spec.reproduces == build.version
        assert not found.build.version
        assert [version.name async for version in client.versions.list("churn")] == [build.version]
        assert (await client.aliases.get("churn", "first")).version == build.version


async def test_what_differs_is_told_and_secrets_stay_out_of_reports(
    stack: Stack, environments: Path
) -> None:
    source = write_source(stack.data / "source", models=MODEL, test_churn=TESTS)
    (source / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["numpy"]\n')
    settings = {"MODELYARD_WORKER_SANDBOX": "off"}  # as where there can be none
    async with stack.client() as client, stack.worker(environments=environments, **settings):
        order = await client.builds.create(
            source,
            model="churn",
            entry="models:Churn",
            params={"lucky": True},
            skip_image=True,
        )
        build = await ended(client, order.name)
        assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
        assert not build.image
        told = [event.log.text async for event in client.builds.logs(build.name, grep="require")]
        assert told == ["1 requirements of pyproject.toml"]
        with pytest.raises(FailedPreconditionError, match="has no image"):
            await client.images.export("churn/1", stack.data / "image")
        with pytest.raises(FailedPreconditionError, match="is not signed"):
            await client.versions.provenance("churn/1", key=stack.data / "no-key")
        found = await client.builds.reproduction(await client.builds.reproduce("churn/1"))
        assert not found.agrees
        assert {pair.key: pair.agrees for pair in found.metrics} == {"score": True, "luck": False}
        assert all(pair.agrees for pair in found.digests)

        await client.secrets.set("token", "s3cret<&>value")
        order = await client.builds.create(
            source, model="churn", entry="models:Churn", secrets={"TOKEN": "token"}
        )
        failed = await ended(client, order.name)
        assert failed.failure.reason == "TEST_FAILED"
        counts = build_pb2.TestCounts(passed_count=1, failed_count=1, skipped_count=1)
        assert failed.phases[3].tests == counts
        with pytest.raises(InvalidArgumentError, match="repeats no version"):
            await client.builds.reproduction(failed.name)


def _check_provenance(statement: dict[str, Any], build: build_pb2.Build) -> None:
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    assert subjects[build.artifact] == build.artifact.rpartition("/")[2]
    assert f"sha256:{subjects['image']}" == build.image_digest
    assert "code/model.py" in subjects
    definition = statement["predicate"]["buildDefinition"]
    inputs = {found.get("name"): found for found in definition["resolvedDependencies"]}
    assert inputs["source"]["digest"]["sha256"] == build.source.rpartition("/")[2]
    assert len(inputs["lock"]["digest"]["sha256"]) == 64
    packages = [found.get("uri", "") for found in definition["resolvedDependencies"]]
    assert any(uri.startswith("pkg:pypi/numpy@") for uri in packages)


def _check_envelope(data: bytes, keys: Keys) -> None:
    """Verify an envelope by its specification alone, and that a changed one holds no more."""
    envelope = json.loads(data)
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (signature,) = envelope["signatures"]
    public = serialization.load_pem_public_key(keys.public.read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(signature["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    envelope["payload"] = base64.b64encode(payload.replace(b"churn", b"other")).decode()
    with pytest.raises(FailedPreconditionError, match="does not hold"):
        _envelope.verify(json.dumps(envelope).encode(), keys.public)


def _check_layout(layout: Path, build: build_pb2.Build) -> None:
    """Check an image's layout as whoever reads it does: by digests from its index on."""
    index = json.loads((layout / "index.json").read_bytes())
    (descriptor,) = index["manifests"]
    assert descriptor["digest"] == build.image_digest
    assert descriptor["annotations"]["org.opencontainers.image.ref.name"] == "1"
    manifest = json.loads(images.blob(layout, descriptor["digest"]).read_bytes())
    for part in (descriptor, manifest["config"], *manifest["layers"]):
        data = images.blob(layout, part["digest"]).read_bytes()
        assert part["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert part["size"] == len(data)
    environment, model = manifest["layers"]
    with tarfile.open(images.blob(layout, environment["digest"])) as tar:
        names = tar.getnames()
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in tar.getmembers()} == {(0, 0, 0, "")}
    assert any(name.endswith("site-packages/numpy/__init__.py") for name in names)
    assert not any("_virtualenv" in name or "direct_url" in name for name in names)
    with tarfile.open(images.blob(layout, model["digest"])) as tar:
        assert "opt/modelyard/model/modelyard.json" in tar.getnames()
