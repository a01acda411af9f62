"""Images as layouts: the same for the same contents, and put on a base whose words are kept."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from modelyard import images
from modelyard.images import Facts, ImageError, Layer

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def facts(**changes: Any) -> Facts:
    given = {"model": "churn", "python": "3.11", "architecture": "amd64", "tag": "abc"}
    return Facts(**(given | changes), labels={"dev.modelyard.artifact": "a" * 64})


def own_layers(folder: Path) -> list[Layer]:
    layers = []
    for role in ("environment", "model"):
        file = folder / f"{role}.tar"
        file.write_bytes(role.encode() * 100)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        layers.append(Layer(role, file, f"sha256:{digest}"))
    return layers


def a_base(layout: Path) -> Path:
    """Write an image as others make them: a compressed layer, an index within the index."""

    def put(data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = images.blob(layout, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"digest": digest, "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/opt/python/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(b'base').hexdigest()}"]},
        "history": [{"created_by": "base"}],
    }
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/json", **put(json.dumps(config).encode())},
        "layers": [{"mediaType": DOCKER_LAYER, **put(gzip.compress(b"base", mtime=0))}],
    }
    inner = {"mediaType": DOCKER_MANIFEST, **put(json.dumps(manifest).encode())}
    index = {"mediaType": images.INDEX_TYPE, **put(json.dumps({"manifests": [inner]}).encode())}
    (layout / "index.json").write_text(json.dumps({"manifests": [index]}))
    return layout


def read(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the configuration of a layout's one image."""
    digest = images.manifest_digest(layout)
    manifest = json.loads(images.blob(layout, digest).read_bytes())
    return manifest, json.loads(images.blob(layout, manifest["config"]["digest"]).read_bytes())


def test_an_image_is_the_same_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    layers = own_layers(tmp_path)
    first = images.write_image(tmp_path / "one", facts(), layers)
    assert first == images.write_image(tmp_path / "two", facts(), layers)
    assert first != images.write_image(tmp_path / "three", facts(model="other"), layers)
    images.name_image(tmp_path / "one", "7", {})
    assert images.manifest_digest(tmp_path / "one") == first


def test_a_base_is_put_under_it_at_once_or_later_alike(tmp_path: Path) -> None:
    layers, base = own_layers(tmp_path), images.read_base(a_base(tmp_path / "base"), "amd64")
    at_once = images.write_image(tmp_path / "one", facts(), layers, base)
    images.write_image(tmp_path / "two", facts(), layers)
    assert images.put_on_base(tmp_path / "two", base) == at_once

    manifest, config = read(tmp_path / "two")
    kinds = [layer["mediaType"] for layer in manifest["layers"]]
    assert kinds == [f"{images.LAYER_TYPE}+gzip", images.LAYER_TYPE, images.LAYER_TYPE]
    own = [layer.digest for layer in layers]
    assert config["rootfs"]["diff_ids"] == [*base.config["rootfs"]["diff_ids"], *own]
    assert manifest["annotations"][images.BASE_DIGEST] == base.digest
    environment = dict(text.split("=", 1) for text in config["config"]["Env"])
    assert environment["PATH"] == "/opt/modelyard/env/bin:/opt/python/bin:/bin"
    assert environment["LANG"] == "C.UTF-8"
    assert config["config"]["Entrypoint"][0] == "python3.11"
    blobs = {path.name for path in (tmp_path / "two" / "blobs" / "sha256").iterdir()}
    assert len(blobs) == 5  # three layers, the configuration, the manifest: nothing is left over


def test_what_cannot_be_put_together_is_refused(tmp_path: Path) -> None:
    layout = a_base(tmp_path / "base")
    with pytest.raises(ImageError, match="no image for linux/arm64"):
        images.read_base(layout, "arm64")
    with pytest.raises(ImageError, match=r"index\.json"):
        images.read_base(tmp_path, "amd64")
    base = images.read_base(layout, "amd64")
    images.write_image(tmp_path / "one", facts(), own_layers(tmp_path), base)
    with pytest.raises(ImageError, match="stands on a base already"):
        images.put_on_base(tmp_path / "one", base)
    with pytest.raises(ImageError, match="is no digest"):
        images.blob(layout, "sha256:../../etc/passwd")
