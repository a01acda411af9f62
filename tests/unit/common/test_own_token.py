from __future__ import annotations

from pathlib import Path

import pytest

from services.common.errors import Reason, ServiceError
from services.common.own_token import OwnToken
from services.common.settings import SettingsError


def test_a_token_may_come_later_change_and_go(tmp_path: Path) -> None:
    file = tmp_path / "worker.token"
    token = OwnToken(str(file))
    with pytest.raises(ServiceError) as away:
        token.read()
    assert away.value.reason is Reason.SERVICE_UNAVAILABLE
    assert str(tmp_path) not in away.value.message
    file.touch(mode=0o600)
    for secret in ("first", "second"):
        file.write_text(f"{secret}\n")
        assert token.read() == secret
    for nothing in (b"", b"\n", b"t\xc3\xb6ken", b"two\nlines"):
        file.write_bytes(nothing)
        with pytest.raises(ServiceError) as away:
            token.read()
        assert away.value.reason is Reason.SERVICE_UNAVAILABLE
    file.chmod(0o604)
    with pytest.raises(ServiceError, match="no token of its own"):
        token.read()
    with pytest.raises(SettingsError, match="everybody may read this secret"):
        OwnToken(str(file))
