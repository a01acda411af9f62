"""A worker's settings that no build could use are refused when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from services.builder.worker.settings import PREFIX, WorkerSettings
from services.common.settings import SettingsError, load


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"SIGNING_KEY_FILE": "/none"}, "signing_key_file: /none is no private key"),
        ({"SIGNING_KEY_FILE": __file__}, "signing_key_file: .* is no private key"),
        ({"IMAGE_REPOSITORY": "team"}, "is no registry/repository:tag"),
        ({"IMAGE_REPOSITORY": "https://a.b/team"}, "is no registry/repository:tag"),
        (
            {"IMAGE_REPOSITORY": "a.b/team", "IMAGE_AUTH_FILE": __file__},
            "auth_file: .*may read this",
        ),
        (
            {"IMAGE_REPOSITORY": "a.b/team", "IMAGE_AUTH_FILE": "/none"},
            "image_auth_file: /none: No",
        ),
    ],
)
def test_what_no_build_could_use_is_refused(settings: dict[str, str], problem: str) -> None:
    given = {PREFIX + key: value for key, value in {"TOKEN_FILE": "t", **settings}.items()}
    with pytest.raises(SettingsError, match=problem) as raised:
        load(WorkerSettings, PREFIX, given)
    assert "BEGIN" not in str(raised.value)


def test_a_place_for_images_is_taken(tmp_path: Path) -> None:
    auth = tmp_path / "config.json"
    auth.write_text("{}")
    auth.chmod(0o600)
    given = {"TOKEN_FILE": "t", "IMAGE_REPOSITORY": "a.b:5000/team", "IMAGE_AUTH_FILE": str(auth)}
    found = load(WorkerSettings, PREFIX, {PREFIX + key: value for key, value in given.items()})
    assert found.image_repository == "a.b:5000/team"


def test_a_key_that_everybody_may_read_signs_nothing(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file = tmp_path / "key.pem"
    file.touch(mode=0o600)
    file.write_bytes(pem)
    given = {f"{PREFIX}TOKEN_FILE": "t", f"{PREFIX}SIGNING_KEY_FILE": str(file)}
    assert load(WorkerSettings, PREFIX, given).signing_key_file == str(file)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"signing_key_file: .*everybody may read this secret"):
        load(WorkerSettings, PREFIX, given)
