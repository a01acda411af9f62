"""A certificate that its authority took back opens nothing any more."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard.builder.v1 import build_service_pb2, build_service_pb2_grpc, worker_service_pb2_grpc

from services.common.rpc.callers import TRUST_DOMAIN, Callers
from services.common.rpc.revocation import Revocations
from services.common.settings import SettingsError
from tests.certificates import HOUR, Authority
from tests.rpc.common.test_mutual_tls import (
    ALLOWED,
    AUTHORITY,
    BUILD,
    DENIED,
    LEASE,
    STRANGERS,
    authority_file,
    code,
    make_server,
    verdicts,
)

BITES_SECONDS = 60.0
"""On any machine; on one at rest it takes a second, which is how often the file is looked at."""
NEXT = Authority(title="the next authority")


def put(file: Path, content: bytes) -> str:
    """Replace a file at one stroke, as one does."""
    draft = file.with_suffix(".draft")
    draft.write_bytes(content)
    os.replace(draft, file)  # noqa: PTH105 - nothing of a few bytes blocks
    return str(file)


def test_authorities_of_one_name_have_a_list_each(tmp_path: Path) -> None:
    old, new, file = AUTHORITY, STRANGERS, tmp_path / "revoked.pem"
    both = put(tmp_path / "authorities.pem", old.pem + new.pem)
    with pytest.raises(SettingsError, match="has no list of CN=modelyard test"):
        Revocations(put(file, new.revoke()), both)
    lost, kept = old.issue("lost")[1], old.issue("kept")[1]
    # What one says of a number is not said of the other's.
    revocations = Revocations(put(file, new.revoke(kept) + old.revoke(lost)), both)
    assert [revocations.holds([pem]) for pem in (lost, kept)] == [True, False]
    assert not revocations.holds([old.pem, new.pem])


async def test_users_through_the_proxy_are_not_told_to_be_revoked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revocations = Revocations(
        put(tmp_path / "revoked.pem", AUTHORITY.revoke()), authority_file(tmp_path)
    )
    own = AUTHORITY.issue(f"{TRUST_DOMAIN}builder")
    server = make_server(tmp_path, own, callers=Callers(revocations))
    address = f"127.0.0.1:{await server.start()}"
    proxy = AUTHORITY.issue(f"{TRUST_DOMAIN}proxy")
    assert await verdicts(address, proxy) == ("OK", DENIED)
    assert "revoked" not in caplog.text
    await server.stop()


async def test_a_revoked_certificate_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "revoked.pem"
    revocations = Revocations(put(file, AUTHORITY.revoke()), authority_file(tmp_path))
    name = f"{TRUST_DOMAIN}worker"
    server = make_server(
        tmp_path,
        AUTHORITY.issue(f"{TRUST_DOMAIN}builder"),
        callers=Callers(revocations),
        recheck_seconds=0.1,
    )
    address = f"127.0.0.1:{await server.start()}"
    lost, kept = AUTHORITY.issue(name), AUTHORITY.issue(name)
    builds = build_service_pb2_grpc.BuildServiceStub
    workers = worker_service_pb2_grpc.WorkerServiceStub
    metadata = (("authorization", f"Bearer {ALLOWED.credential}"),)
    async with (
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(AUTHORITY.pem, *lost)) as bad,
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(AUTHORITY.pem, *kept)) as ok,
    ):
        wanted = build_service_pb2.StreamBuildEventsRequest(build=BUILD.name)
        call: Any = builds(bad).StreamBuildEvents(wanted, metadata=metadata, timeout=60)
        stream = aiter(call)
        await anext(stream)
        assert await code(bad, workers, "LeaseBuild", LEASE) == "OK"
        put(file, AUTHORITY.revoke(lost[1]))
        begun = time.monotonic()
        while await code(bad, workers, "LeaseBuild", LEASE) == "OK":
            assert time.monotonic() - begun < BITES_SECONDS
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in stream:
                pass
        assert ended.value.code().name == DENIED
        for channel, verdict in ((bad, DENIED), (ok, "OK")):
            assert await code(channel, builds, "GetBuild", BUILD) == verdict
            assert await code(channel, workers, "LeaseBuild", LEASE) == verdict
    await server.stop()


BAD: dict[str, Callable[[], bytes]] = {
    "holds no list of": lambda: AUTHORITY.revoke().replace(b"MI", b"XX", 1),
    "did not sign its list": lambda: AUTHORITY.revoke() + STRANGERS.revoke(),
    "is outdated": lambda: AUTHORITY.revoke(begins=-2 * HOUR, ends=-HOUR),
    "is of the future": lambda: AUTHORITY.revoke(begins=HOUR / 2),
    "is not a whole one": lambda: AUTHORITY.revoke(is_delta=True),
    "has no list of CN=modelyard test": lambda: b"nothing",
}


@pytest.mark.parametrize("problem", BAD)
def test_a_list_that_is_no_good_is_told_at_the_start(tmp_path: Path, problem: str) -> None:
    file = put(tmp_path / "revoked.pem", BAD[problem]())
    with pytest.raises(SettingsError, match=problem):
        Revocations(file, authority_file(tmp_path))
    with pytest.raises(SettingsError, match="No such file"):
        Revocations(str(tmp_path / "missing"), authority_file(tmp_path))


def test_a_bad_list_that_comes_later_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "revoked.pem"
    lost, kept = AUTHORITY.issue("lost")[1], AUTHORITY.issue("kept")[1]
    revocations = Revocations(
        put(file, AUTHORITY.revoke(lost)), authority_file(tmp_path), seconds=0
    )
    for problem in (
        "holds no list of",
        "did not sign its list",
        "has no list of CN=modelyard test",
    ):
        put(file, BAD[problem]())
        assert [revocations.holds([pem]) for pem in (lost, kept)] == [True, False]
    file.unlink()
    assert [revocations.holds([pem]) for pem in (lost, kept)] == [True, False]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4
    # One that is outdated says what is true nevertheless; it is asked for a newer one.
    put(file, AUTHORITY.revoke(lost, kept, begins=-2 * HOUR, ends=-HOUR))
    assert revocations.holds([kept])
    assert "outdated" in caplog.text
    put(file, AUTHORITY.revoke(kept))
    assert [revocations.holds([pem]) for pem in (lost, kept)] == [False, True]


def test_of_whom_there_is_no_list_nothing_is_let_in(tmp_path: Path) -> None:
    authorities, file = tmp_path / "authorities.pem", tmp_path / "revoked.pem"
    revocations = Revocations(
        put(file, AUTHORITY.revoke()), put(authorities, AUTHORITY.pem), seconds=0
    )
    ours, theirs = AUTHORITY.issue("ours")[1], NEXT.issue("theirs")[1]
    put(authorities, AUTHORITY.pem + NEXT.pem)
    assert [revocations.holds([pem]) for pem in (ours, theirs)] == [False, True]
    put(file, AUTHORITY.revoke() + NEXT.revoke())
    assert [revocations.holds([pem]) for pem in (ours, theirs)] == [False, False]
    # Whatever came with a certificate is looked up, too.
    put(file, AUTHORITY.revoke(ours) + NEXT.revoke())
    assert revocations.holds([theirs, ours])
