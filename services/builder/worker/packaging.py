"""The package phase: what was built becomes a bundle, an image and the evidence of both.

The bundle holds nothing of when, where or by whom it was built, so the same training makes the
same artifact; all that is said of the build itself lies beside it, in the evidence.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
from pathlib import Path

from modelyard import bundle, images
from modelyard._evidence import envelope as _envelope
from modelyard._transfers.tree import Entry, list_files, tree_digest
from modelyard.errors import ModelyardError
from modelyard.images import Base, ImageError, Layer

from services.builder.worker import layers
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.provenance import Products, statement
from services.builder.worker.work import PhaseFailedError, Work
from services.common.environments.lock import lock_digest

PROVENANCE_FILE = "provenance.json"
SIGNED_FILE = "provenance.dsse.json"
TESTS_FILE = "tests.xml"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FAILURES = (bundle.BundleError, ImageError, ModelyardError, OSError, UnicodeDecodeError)


async def package(work: Work, _builder: BuilderClient) -> None:
    """Complete the bundle, and make the image and the evidence."""
    try:
        files = await asyncio.to_thread(_complete_bundle, work)
        base = await _image(work, tree_digest(files))
        products = Products(files, work.image_digest, base.digest if base else "")
        await asyncio.to_thread(_write_evidence, work, products)
    except _FAILURES as error:
        raise PhaseFailedError("PACKAGE_FAILED", str(error)) from error


def _complete_bundle(work: Work) -> list[Entry]:
    """Put into the bundle what the worker knows better than the build's code; hash it."""
    _refuse_links(work.bundle)
    facts = bundle.read(work.bundle)
    lock = work.bundle / bundle.LOCK_FILE
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(work.lock)
    if facts.environment_digest != lock_digest(work.lock):
        raise bundle.BundleError("the bundle names another environment than it was built in")
    schema = work.bundle / bundle.SCHEMA_FILE
    schema.unlink(missing_ok=True)
    if work.schema is not None:
        schema.write_text(json.dumps(work.schema, indent=1) + "\n")
    work.python_version, work.card, work.license = facts.python, facts.card, facts.license
    return [_hashed(file.path, file.location) for file in list_files(work.bundle)]


def _refuse_links(folder: Path) -> None:
    """Refuse links: what the build's code made must not lead out of the bundle."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (Path(parent) / name).is_symlink():
                raise bundle.BundleError(f"{name} is a link; a bundle holds files only")


def _hashed(path: str, location: Path) -> Entry:
    with location.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state = location.stat()
    return Entry(path, bool(state.st_mode & 0o100), state.st_size, digest)


async def _image(work: Work, artifact: str) -> Base | None:
    """Make the image unless the order leaves it out; return the base that it stands on."""
    if work.build.spec.skip_image:
        work.say("no image is made, as ordered")
        return None
    if work.environment is None:
        raise AssertionError
    environment = await layers.environment_layer(work.environments, work.environment)
    base = await asyncio.to_thread(_base, work)
    await asyncio.to_thread(_write_image, work, artifact, environment, base)
    stands = f"on {base.digest}" if base else f"for a base with Python {work.python_version}"
    work.say(f"image {work.image_digest}, {stands}")
    return base


def _base(work: Work) -> Base | None:
    layout = work.settings.image_base
    return images.read_base(Path(layout), _architecture()) if layout else None


def _write_image(work: Work, artifact: str, environment: Layer, base: Base | None) -> None:
    model = work.build.model.rpartition("/")[2]
    work.image_tag = artifact[:12]
    origin = work.build.origin
    labels = {
        "org.opencontainers.image.title": model,
        "org.opencontainers.image.source": origin.repository,
        "org.opencontainers.image.revision": origin.commit,
        "org.opencontainers.image.licenses": work.license,
        "dev.modelyard.artifact": artifact,
        "dev.modelyard.environment": lock_digest(work.lock),
    }
    facts = images.Facts(
        model=model,
        python=work.python_version,
        architecture=_architecture(),
        tag=work.image_tag,
        labels={name: text for name, text in labels.items() if text},
    )
    layout = work.image
    layout.mkdir()
    own = [environment, layers.model_layer(work.bundle, work.folder / "model.tar")]
    work.image_digest = images.write_image(layout, facts, own, base)


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _write_evidence(work: Work, products: Products) -> None:
    work.evidence.mkdir()
    if work.test_report:
        (work.evidence / TESTS_FILE).write_bytes(work.test_report)
    text = json.dumps(statement(work, products), indent=1) + "\n"
    told = work.mask.text(text).encode()
    (work.evidence / PROVENANCE_FILE).write_bytes(told)
    if work.settings.signing_key_file:
        signer = _envelope.signer(work.settings.signing_key_file)
        (work.evidence / SIGNED_FILE).write_bytes(_envelope.sign(told, signer))
