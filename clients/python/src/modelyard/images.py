"""Container images as OCI image layouts (image specification 1.0): written, named, put on a base.

An image has two layers of its own: an environment's packages below `ENVIRONMENT`, which is a
*user base* of Python's, and a bundle in `MODEL`. Layers are not compressed: what two images share
is stored once however they differ elsewhere, and whoever sends one to a registry compresses it.
Nothing in an image tells when or where it was made, so the same contents have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENVIRONMENT = "/opt/modelyard/env"
MODEL = "/opt/modelyard/model"
HTTP_PORT = 8080
GRPC_PORT = 8081
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
REF_NAME = "org.opencontainers.image.ref.name"
OWN = "dev.modelyard.layer"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BASE_MANIFESTS = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TYPE,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_TYPE}+gzip",
}
_MAX_JSON = 16 * 1024 * 1024


class ImageError(ValueError):
    """A layout cannot be read or used; the text says why."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image's own: an uncompressed tar."""

    role: str
    """`environment` or `model`."""
    file: Path
    digest: str
    """`sha256:…`, of the tar."""


@dataclass(frozen=True, slots=True)
class Base:
    """An image that others stand on, in a layout."""

    layout: Path
    digest: str
    """Of its manifest."""
    layers: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image says of itself."""

    model: str
    python: str
    """Such as `3.11`: a base must have it as `python3.11`."""
    architecture: str
    """As Go names it, such as `amd64`."""
    tag: str
    """What it is called in its layout until it is exported."""
    labels: Mapping[str, str] = field(default_factory=dict)


def write_image(
    layout: Path, facts: Facts, layers: Sequence[Layer], base: Base | None = None
) -> str:
    """Write a layout with one image to a new folder; return the digest of its manifest."""
    config: dict[str, Any] = {
        "architecture": facts.architecture,
        "os": "linux",
        "config": _run_config(facts),
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created_by": f"modelyard: {layer.role}"} for layer in layers],
    }
    for layer in layers:
        _put_file(layout, layer.file, layer.digest)
    own = [_layer_descriptor(layer) for layer in layers]
    annotations = {BASE_NAME: f"python:{facts.python}-slim"}
    return _finish(layout, config, own, annotations, base=base, tag=facts.tag)


def put_on_base(layout: Path, base: Base) -> str:
    """Put the image of a layout, which has no base, on one; return its manifest's new digest.

    Raises:
        ImageError: It stands on a base already, or is for another architecture.
    """
    descriptor, manifest = _only_manifest(layout)
    if BASE_DIGEST in manifest.get("annotations", {}):
        raise ImageError(f"{layout}: the image stands on a base already")
    config = _read_blob(layout, manifest["config"]["digest"])
    tag = descriptor.get("annotations", {}).get(REF_NAME, "latest")
    for digest in (descriptor["digest"], manifest["config"]["digest"]):
        blob(layout, digest).unlink()
    return _finish(layout, config, manifest["layers"], {}, base=base, tag=tag)


def name_image(layout: Path, tag: str, annotations: Mapping[str, str]) -> None:
    """Say in a layout what its one image is called; the image itself does not change."""
    descriptor, _ = _only_manifest(layout)
    _write_index(layout, {**descriptor, "annotations": {REF_NAME: tag, **annotations}})


def manifest_digest(layout: Path) -> str:
    """Return the digest of the manifest of a layout's one image."""
    return str(_only_manifest(layout)[0]["digest"])


def parts(layout: Path) -> list[tuple[str, int]]:
    """Return the digests and sizes of what the manifest of a layout's one image names."""
    _, manifest = _only_manifest(layout)
    return [(part["digest"], part["size"]) for part in (manifest["config"], *manifest["layers"])]


def read_base(layout: Path, architecture: str) -> Base:
    """Read the image for an architecture in a layout that somebody gives.

    Raises:
        ImageError: There is none.
    """
    for descriptor in _descriptors(layout, _read_json(layout / "index.json")):
        manifest = _read_blob(layout, descriptor["digest"])
        config = _read_blob(layout, manifest["config"]["digest"])
        if (config.get("os"), config.get("architecture")) == ("linux", architecture):
            return Base(layout, descriptor["digest"], manifest["layers"], config)
    raise ImageError(f"{layout} holds no image for linux/{architecture}")


def architecture(layout: Path) -> str:
    """Return for which architecture the one image of a layout is, such as `amd64`."""
    _, manifest = _only_manifest(layout)
    return str(_read_blob(layout, manifest["config"]["digest"]).get("architecture"))


def known_digests(layout: Path) -> dict[str, str]:
    """Return the SHA-256 of a layout's blobs by their paths in it: their names tell."""
    folder = layout / "blobs" / "sha256"
    return {path.relative_to(layout).as_posix(): path.name for path in folder.iterdir()}


def blob(layout: Path, digest: str) -> Path:
    """Return where a layout keeps what has a digest."""
    algorithm, _, value = digest.partition(":")
    if algorithm not in ("sha256", "sha512") or not value.isalnum():
        raise ImageError(f"{layout}: {digest!r} is no digest")
    return layout / "blobs" / algorithm / value


def _run_config(facts: Facts) -> dict[str, Any]:
    python = f"python{facts.python}"
    return {
        # A user base is found as the machine's own packages are, `.pth` files and all.
        "Env": [
            f"PATH={ENVIRONMENT}/bin:{_PATH}",
            f"PYTHONUSERBASE={ENVIRONMENT}",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONUNBUFFERED=1",
        ],
        "Entrypoint": [
            *(python, "-m", "modelyard.serving", "--bundle", MODEL, "--name", facts.model),
            *("--host", "0.0.0.0"),  # noqa: S104 - a container's own network
            *("--http-port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT)),
        ],
        "Cmd": ["--version", facts.tag],
        "ExposedPorts": {f"{HTTP_PORT}/tcp": {}, f"{GRPC_PORT}/tcp": {}},
        "User": "65534:65534",
        "WorkingDir": MODEL,
        "Labels": dict(sorted(facts.labels.items())),
    }


def _finish(
    layout: Path,
    config: dict[str, Any],
    own: Sequence[Mapping[str, Any]],
    annotations: Mapping[str, str],
    *,
    base: Base | None,
    tag: str,
) -> str:
    """Write all but the own layers of a layout."""
    layers = list(own)
    if base is not None:
        config = _over(base.config, config)
        layers = [*(_taken(layout, base, layer) for layer in base.layers), *own]
        annotations = {BASE_DIGEST: base.digest}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, **_put(layout, _json(config))},
        "layers": layers,
        "annotations": dict(annotations),
    }
    written = _put(layout, _json(manifest))
    platform = {"architecture": config["architecture"], "os": "linux"}
    descriptor = {"mediaType": MANIFEST_TYPE, **written, "platform": platform}
    _write_index(layout, {**descriptor, "annotations": {REF_NAME: tag}})
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(written["digest"])


def _over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image's configuration on top of its base's."""
    if base["architecture"] != own["architecture"]:
        raise ImageError(f"the base is for {base['architecture']}, not {own['architecture']}")
    given, mine = base.get("config") or {}, own["config"]
    variables = dict(text.split("=", 1) for text in given.get("Env") or ())
    path = variables.get("PATH", _PATH)
    variables |= dict(text.split("=", 1) for text in mine["Env"])
    variables["PATH"] = f"{ENVIRONMENT}/bin:{path}"
    merged = {**given, **mine, "Env": [f"{name}={value}" for name, value in variables.items()]}
    merged["Labels"] = {**(given.get("Labels") or {}), **mine["Labels"]}
    diffs = [*base["rootfs"]["diff_ids"], *own["rootfs"]["diff_ids"]]
    history = [*(base.get("history") or ()), *own["history"]]
    rootfs = {"type": "layers", "diff_ids": diffs}
    return {**own, "config": merged, "rootfs": rootfs, "history": history}


def _taken(layout: Path, base: Base, layer: Mapping[str, Any]) -> dict[str, Any]:
    """Have a layer of the base in a layout; return its descriptor there."""
    _put_file(layout, blob(base.layout, layer["digest"]), layer["digest"])
    kind = layer["mediaType"]
    return {"mediaType": _LAYER_TYPES.get(kind, kind), **_size(layer["digest"], layer["size"])}


def _layer_descriptor(layer: Layer) -> dict[str, Any]:
    size = _size(layer.digest, layer.file.stat().st_size)
    return {"mediaType": LAYER_TYPE, **size, "annotations": {OWN: layer.role}}


def _descriptors(layout: Path, index: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the manifests that an index names, also by further indexes."""
    for descriptor in index.get("manifests", ()):
        if descriptor.get("mediaType") in _BASE_MANIFESTS:
            yield descriptor
        elif blob(layout, descriptor["digest"]).exists():
            yield from _descriptors(layout, _read_blob(layout, descriptor["digest"]))


def _only_manifest(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = list(_descriptors(layout, _read_json(layout / "index.json")))
    if len(found) != 1:
        raise ImageError(f"{layout} holds {len(found)} images, not one")
    return dict(found[0]), _read_blob(layout, found[0]["digest"])


def _write_index(layout: Path, descriptor: Mapping[str, Any]) -> None:
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [descriptor]}
    (layout / "index.json").write_bytes(_json(index))


def _put(layout: Path, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = blob(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return _size(digest, len(data))


def _put_file(layout: Path, file: Path, digest: str) -> None:
    """Have a file as a blob: the same file where both lie on one disk."""
    path = blob(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    try:
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)


def _size(digest: str, size: int) -> dict[str, Any]:
    return {"digest": digest, "size": size}


def _read_blob(layout: Path, digest: str) -> dict[str, Any]:
    return _read_json(blob(layout, digest))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ImageError(f"{path} is too large")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise ImageError(f"{path} is no JSON object")
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
