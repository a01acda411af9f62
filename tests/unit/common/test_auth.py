"""For how long an answer about a credential is good."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from services.common import auth
from services.common.auth import CACHE_SECONDS, CachingAuthenticator, Identity, invalid_credential
from services.common.errors import ServiceError

BITES_SECONDS = 5.0


class Tokens:
    """Metadata: it takes its time, in which a token may be revoked."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.is_revoked = False
        self.asked = 0
        self.clock = clock
        self.takes = 0.0

    async def introspect(self, credential: str) -> Identity:
        self.asked += 1
        if self.is_revoked:
            raise invalid_credential()
        self.clock.now += self.takes
        return Identity("user:ada", credential)


@pytest.mark.parametrize("takes", [0.0, 3.0])
async def test_a_revoked_token_is_known_within_seconds(
    monkeypatch: pytest.MonkeyPatch, takes: float
) -> None:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(auth, "time", clock)
    tokens = Tokens(clock)
    caching, tokens.takes = CachingAuthenticator(tokens), takes
    assert (await caching.introspect("t")).principal == "user:ada"
    tokens.is_revoked = True
    clock.now = 100.0 + CACHE_SECONDS - 0.1
    assert await caching.introspect("t") == caching.known("t")
    assert tokens.asked == 1
    assert CACHE_SECONDS + 0.1 < BITES_SECONDS
    clock.now = 100.0 + CACHE_SECONDS + 0.1
    assert caching.known("t") is None
    with pytest.raises(ServiceError, match="valid token"):
        await caching.introspect("t")
