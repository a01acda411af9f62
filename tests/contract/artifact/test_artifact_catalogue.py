"""The catalogue of bad input, archives and uploads, on disk and S3, with its side checks.

Archives are files among others: they are looked into for the report on formats and never unpacked,
so what a hostile one would write has nowhere to go. Uploads have no offsets and no sessions:
chunks are named by their digests, so gaps, overlaps and two writers cannot harm each other.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import pickle
import struct
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard.artifact.v1 import artifact_service_pb2 as pb
from modelyard.artifact.v1 import format_service_pb2 as formats
from modelyard.artifact.v1 import format_service_pb2_grpc

from services.artifact.settings import ArtifactSettings
from tests.catalogue.sides import (
    ABSENT,
    DENIED,
    INVALID,
    OK,
    TOO_MUCH,
    WRONG_STATE,
    Answer,
    Sides,
    changed,
    fingerprint,
    open_to_others,
    refusal,
)
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.serving import TOKENS, connected, serving
from tests.contract.artifact.stores import Storehouse, until
from tests.contract.artifact.test_artifact_refusals import encoded, entry
from tests.contract.artifact.yard import MIB, Content, Yard, noise, recipe, sha

TREE = {"big": Content(noise(1, MIB + 5)), "small": Content(b"small")}
BOMB = 16 * MIB
UPLOADS = frozenset({"chunks", "packs", "files", "spaces", "duties"})
"""What a refused artifact leaves behind: bytes that nobody can see, and that are swept."""


@dataclass(frozen=True, slots=True)
class Place:
    """A stored tree, and a client of the service that keeps it."""

    yard: Yard
    house: Storehouse
    other: Yard
    artifact: str
    port: int


@pytest.fixture
async def place(backend: Backend) -> AsyncIterator[Place]:
    async with (
        serving(backend.settings) as port,
        connected(port) as stub,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yard = Yard(stub)
        stored = await yard.push(TREE)
        yield Place(yard, Storehouse(channel), Yard(stub, "beta"), stored.name, port)


Case = tuple[str, Callable[[Place], Awaitable[Any]], grpc.StatusCode, str]


def manifest(*paths: str) -> Callable[[Place], Awaitable[Any]]:
    """Push a tree with these paths."""

    async def push(place: Place) -> None:
        ordered = sorted(paths, key=lambda path: path.encode("utf-16-be", "surrogatepass"))
        await place.yard.push_files([b"x"])
        await place.yard.push_manifest(encoded([entry(path) for path in ordered]))

    return push


def digest(text: str) -> Callable[[Place], Awaitable[Any]]:
    return lambda place: place.yard.create(text)


def chunks(*data: bytes, digests: tuple[bytes, ...] = ()) -> Callable[[Place], Awaitable[Any]]:
    return lambda place: place.yard.write(data, digests=digests)


def file(true: bytes, said: bytes, size: int) -> Callable[[Place], Awaitable[Any]]:
    async def commit(place: Place) -> None:
        await place.yard.write([true])
        told = pb.FileRecipe(digest=said, size_bytes=size, chunk_digests=[sha(true)])
        await place.yard.commit(told)

    return commit


def reading(path: str, offset: int, limit: int = 0) -> Callable[[Place], Awaitable[Any]]:
    return lambda place: place.yard.read(place.artifact, path, offset=offset, limit=limit)


async def absent_commit(place: Place) -> None:
    await place.yard.commit(recipe(b"never sent"))


async def of_another(place: Place) -> None:
    foreign = Yard(place.yard.stub, "alpha", token="beta-token")
    await foreign.write([b"into another's project"])


async def known_digest_of_another(place: Place) -> None:
    await place.other.commit(recipe(TREE["big"].data))


async def hidden(place: Place) -> None:
    name = place.artifact.replace("/alpha/", "/beta/")
    await place.other.files(name)


MIBS = noise(3, 7)
CASES: list[Case] = [
    *(
        ("A01", manifest(path), INVALID, "INVALID_PATH")
        for path in ("../../etc/passwd", "/etc/passwd", "a/../../b")
    ),
    *(
        ("A02", manifest(path), INVALID, "INVALID_PATH")
        for path in ("..\\..\\x", "C:\\x", "\\\\srv\\x")
    ),
    *(
        ("A03", manifest(path), INVALID, "INVALID_PATH")
        for path in ("file:///etc", "http:///#/../etc", "..;/../x")
    ),
    *(
        ("A04", manifest(path), INVALID, "INVALID_PATH")
        for path in ("x" * 5_000, "y" * 300, "/".join(["z"] * 1_000))
    ),
    *(
        ("A05", manifest(*paths), INVALID, "INVALID_PATH")
        for paths in (("a", "a"), ("a", "a/b"), ("A/x", "a/y"))
    ),
    ("N07", manifest("cafe\u0301"), INVALID, "INVALID_PATH"),
    *(
        ("A06", digest(text), INVALID, "INVALID_FIELD")
        for text in ("sha256:../../x", "A" * 64, "a" * 63, "md5:" + "a" * 32, "", "\0")
    ),
    ("U01", chunks(b"other", digests=(sha(b"said"),)), INVALID, "DIGEST_MISMATCH"),
    ("U01", chunks(b"good", b"bad", digests=(sha(b"good"), sha(b"x"))), INVALID, "DIGEST_MISMATCH"),
    ("U01", file(MIBS, sha(b"other"), len(MIBS)), INVALID, "DIGEST_MISMATCH"),
    ("U01", chunks(b"", digests=(sha(b"x"),)), INVALID, "INVALID_FIELD"),
    ("U02", file(MIBS, sha(b"more"), len(MIBS) + 1), INVALID, "DIGEST_MISMATCH"),
    ("U02", file(MIBS, sha(b"less"), len(MIBS) - 1), INVALID, "DIGEST_MISMATCH"),
    ("U02", file(MIBS, sha(b"none"), -1), INVALID, "DIGEST_MISMATCH"),
    ("U06", absent_commit, WRONG_STATE, "BYTES_MISSING"),
    ("U04", chunks(b"x" * 9, digests=(bytes(32),)), INVALID, "DIGEST_MISMATCH"),
    ("U04", chunks(bytes(MIB + 1)), TOO_MUCH, "LIMIT_EXCEEDED"),
    ("U07", of_another, DENIED, "RIGHT_MISSING"),
    ("U07", known_digest_of_another, WRONG_STATE, "BYTES_MISSING"),
    ("U07", hidden, ABSENT, "RESOURCE_NOT_FOUND"),
    ("U12", reading("big", MIB * 2), grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
    ("U12", reading("big", -1), INVALID, "INVALID_FIELD"),
    ("U12", reading("big", 0, -1), INVALID, "INVALID_FIELD"),
    ("U12", reading("../big", 0), INVALID, "INVALID_PATH"),
]


async def test_every_case_ends_as_it_must(place: Place, backend: Backend, tmp_path: Path) -> None:
    await asyncio.gather(*(place.yard.files(place.artifact) for _ in range(50)))
    sides = Sides(tmp_path / "canaries", tuple(TOKENS))
    before = await asyncio.to_thread(fingerprint, url_of(backend.settings), without=UPLOADS)
    wrong = [problem for case in CASES for problem in await tried(sides, place, case)]
    after = await asyncio.to_thread(fingerprint, url_of(backend.settings), without=UPLOADS)
    wrong += [*changed(before, after), *sides.compare(files=15)]
    wrong += open_to_others(Path(backend.settings.data))
    assert wrong == [], "\n".join(wrong)


async def tried(sides: Sides, place: Place, one: Case) -> list[str]:
    """Return what is wrong with how a case ended."""
    case, act, code, reason = one
    answer = await ended(act(place))
    wrong = sides.judge(case, answer)
    if (answer.code, answer.reason) != (code, reason):
        wrong.append(f"{case}: {answer.code.name} {answer.reason} {answer.told[:200]}")
    assert await place.yard.read(place.artifact, "small") == b"small"
    return wrong


async def ended(call: Awaitable[Any]) -> Answer:
    """Say how a call ended."""
    started = time.monotonic()
    try:
        told = repr(await call)
    except grpc.aio.AioRpcError as error:
        return refusal(error, time.monotonic() - started)
    return Answer(OK, told=told, seconds=time.monotonic() - started)


def url_of(settings: ArtifactSettings) -> str:
    return settings.database_url or f"sqlite:///{settings.data}/artifact.db"


class Marker:
    """A pickle that would make a file if anybody loaded it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def tar(*members: tuple[str, bytes, str]) -> bytes:
    """Write a tar of members with names, kinds and targets."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o4755
            archive.addfile(info)
    return buffer.getvalue()


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    """Write a zip of members with names and Unix modes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def nested(depth: int) -> bytes:
    data = b"x"
    for number in range(depth):
        data = zipped((f"{number}.zip", data, 0o644))
    return data


def crowded(count: int) -> bytes:
    """Write a zip whose list says that it has so many empty members."""
    one = zipped(("a", b"", 0o644))
    at = one.index(b"PK\x01\x02")
    listed = one[at : one.index(b"PK\x05\x06")]
    size = len(listed) * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, size, at, 0)
    return one[:at] + listed * count + end


def archives(outside: Path) -> dict[str, tuple[str, bytes]]:
    """Return what is in the catalogue of archives, and pickles."""
    target = str(outside)
    return {
        "A07.tar": ("A07", tar((f"{target}/out", tarfile.REGTYPE, ""), ("../x", b"0", ""))),
        "A08.tar": ("A08", tar(("l", tarfile.SYMTYPE, target), ("l/out", tarfile.REGTYPE, ""))),
        "A09.tar": (
            "A09",
            tar(("h", tarfile.LNKTYPE, "/etc/shadow"), ("d", tarfile.CHRTYPE, ""), ("f", b"6", "")),
        ),
        "A10.zip": ("A10", zipped(("../../x", b"x", 0o644), ("l", target.encode(), 0o120777))),
        "A11.zip": ("A11", zipped(("a.npy", bytes(BOMB), 0o644), ("b.pkl", bytes(BOMB), 0o644))),
        "A11.gz": ("A11", gzip.compress(bytes(BOMB), 1)),
        "A12.zip": ("A12", nested(50)),
        "A12-many.zip": ("A12", crowded(60_000)),
        "B12.pkl": ("B12", pickle.dumps(Marker(outside / "loaded"))),
    }


@pytest.mark.parametrize(
    "backend",
    ["sqlite_disk", pytest.param("postgresql_s3", marks=pytest.mark.slow)],
    indirect=True,
)
async def test_archives_are_kept_as_they_are_and_never_unpacked(
    place: Place, backend: Backend, tmp_path: Path
) -> None:
    sides = Sides(tmp_path / "canaries", tuple(TOKENS))
    files = archives(tmp_path / "canaries")
    stored = await place.yard.push({name: Content(data) for name, (_, data) in files.items()})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{place.port}") as channel:
        stub: Any = format_service_pb2_grpc.FormatServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        request = formats.GetFormatReportRequest(artifact=stored.name)
        started = time.monotonic()
        report = await stub.GetFormatReport(request, metadata=place.yard.metadata, timeout=60)
    wrong = sides.judge("A11", Answer(OK, told=repr(report), seconds=time.monotonic() - started))
    found = {file.path: file.verdict for file in report.files}
    assert set(found) == set(files)
    assert found.pop("B12.pkl") == formats.FORMAT_VERDICT_UNSAFE
    assert formats.FORMAT_VERDICT_ALLOWED not in found.values()
    assert [*wrong, *sides.compare(files=15)] == []
    for name, (_, data) in files.items():
        assert await place.yard.read(stored.name, name) == data


@pytest.mark.slow
async def test_the_same_again_is_the_same_and_writers_do_not_mix(place: Place) -> None:
    """U05, U06, U10: whoever writes the same bytes, and however often, there is one copy."""
    data = noise(9, 64 * 1024)
    before = (await place.house.usage()).needed_bytes
    trees = await asyncio.gather(
        *(place.yard.push({"same": Content(data), "empty": Content(b"")}) for _ in range(50))
    )
    assert len({tree.name for tree in trees}) == 1
    again = await place.yard.push({"same": Content(data), "empty": Content(b"")})
    assert again == trees[0]
    await place.yard.commit(recipe(data))
    assert await place.yard.read(again.name, "same") == data
    assert await place.yard.read(again.name, "empty") == b""
    assert (await place.house.usage()).needed_bytes - before < 2 * len(data)


@pytest.mark.slow
async def test_what_is_abandoned_gives_its_room_back(backend: Backend) -> None:
    """U09: 200 uploads that were begun and never ended."""
    quick = replace(backend.settings, lease_seconds=0.5, grace_seconds=0.0, sweep_seconds=0.0)
    async with (
        serving(quick) as port,
        connected(port) as stub,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yard, house = Yard(stub), Storehouse(channel)
        for first in range(0, 200, 20):
            seeds = range(first, first + 20)
            await asyncio.gather(*(abandoned(yard, noise(seed, 64 * 1024)) for seed in seeds))

        async def is_empty() -> bool:
            await house.sweep()
            return not sum(backend.sizes()) and not (await house.usage()).stored_bytes

        await until(is_empty)


async def abandoned(yard: Yard, data: bytes) -> None:
    """Begin an upload, see that something of it came, and break it off."""

    async def messages() -> AsyncIterator[pb.WriteChunksRequest]:
        chunk = pb.Chunk(digest=sha(data), data=data)
        yield pb.WriteChunksRequest(parent=yard.parent, chunks=[chunk])
        await asyncio.Event().wait()

    call = yard.stub.WriteChunks(messages(), metadata=yard.metadata, timeout=60)
    await asyncio.sleep(0)
    call.cancel()


@pytest.mark.slow
async def test_who_has_too_many_uploads_is_refused_and_nobody_else(place: Place) -> None:
    """U08: a thousand uploads of one principal are open."""
    held = asyncio.Event()

    async def messages() -> AsyncIterator[pb.WriteChunksRequest]:
        yield pb.WriteChunksRequest(parent=place.yard.parent)
        await held.wait()

    ends: list[asyncio.Future[Answer]] = []
    for number in range(1_001):
        call = place.yard.stub.WriteChunks(messages(), metadata=place.yard.metadata, timeout=120)
        ends.append(asyncio.ensure_future(ended(_drained(call))))
        if number % 50 == 0:  # gRPC itself cancels some of a thousand that come at once
            await place.other.find_missing()
    done, _ = await asyncio.wait(ends, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    assert {(one.result().code, one.result().reason) for one in done} == {
        (TOO_MUCH, "LIMIT_EXCEEDED")
    }
    await place.other.write([b"somebody else's"])
    held.set()
    assert [one.code for one in await asyncio.gather(*ends)].count(OK) == 1_000


async def _drained(call: Any) -> list[Any]:
    return [answer async for answer in call]
