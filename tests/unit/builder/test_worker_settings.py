"""A worker's settings that no build could use are refused when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.builder.worker.settings import PREFIX, WorkerSettings
from services.common.settings import SettingsError, load


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"SIGNING_KEY_FILE": "/none"}, "signing_key_file: /none is no private key"),
        ({"SIGNING_KEY_FILE": __file__}, "signing_key_file: .* is no private key"),
        ({"IMAGE_REPOSITORY": "team"}, "is no registry/repository:tag"),
        ({"IMAGE_REPOSITORY": "https://a.b/team"}, "is no registry/repository:tag"),
        ({"IMAGE_REPOSITORY": "a.b/team", "IMAGE_AUTH_FILE": "/none"}, "image_auth_file: there is"),
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
    given = {"TOKEN_FILE": "t", "IMAGE_REPOSITORY": "a.b:5000/team", "IMAGE_AUTH_FILE": str(auth)}
    found = load(WorkerSettings, PREFIX, {PREFIX + key: value for key, value in given.items()})
    assert found.image_repository == "a.b:5000/team"
