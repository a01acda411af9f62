from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from services.artifact.blobs import BlobMissingError
from services.artifact.blobs.disk import DiskBlobs
from services.artifact.domain import SPAN_BYTES, Chunk, ChunkRef
from services.artifact.storage.packs import CorruptChunkError, PackFolder, plan_spans, read_span
from services.common.errors import Reason, ServiceError


def chunk(data: bytes) -> Chunk:
    return Chunk(hashlib.sha256(data).digest(), data)


def ref(pack: str, offset: int, length: int) -> ChunkRef:
    return ChunkRef(b"", pack, offset, length)


def test_chunks_come_back_from_a_finished_pack(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "packs")
    writer = PackFolder(tmp_path / "unfinished").create()
    chunks = [chunk(os.urandom(size)) for size in (1, 1000, 70_000)]
    writer.append(chunks[:2])
    writer.append(chunks[2:])
    pack = writer.finish(blobs)
    assert blobs.size(pack.pack) == pack.size == 71_001
    assert not list((tmp_path / "unfinished").iterdir())
    (span,) = plan_spans(pack.chunks)
    assert read_span(blobs, span) == b"".join(c.data for c in chunks)
    blobs.delete(pack.pack)
    blobs.delete(pack.pack)
    assert blobs.size(pack.pack) is None
    with pytest.raises(BlobMissingError):
        blobs.read(pack.pack, 0, 1)
    with pytest.raises(CorruptChunkError):
        read_span(blobs, span)


def test_a_pack_is_full_at_its_maximum(tmp_path: Path) -> None:
    writer = PackFolder(tmp_path, pack_bytes=10).create()
    assert writer.has_room([chunk(b"x" * 10)])
    writer.append([chunk(b"x" * 4)])
    assert writer.has_room([chunk(b"x" * 6)])
    assert not writer.has_room([chunk(b"x" * 6), chunk(b"y")])


def test_sweep_spares_what_is_young(tmp_path: Path) -> None:
    folder = PackFolder(tmp_path)
    old, young = folder.create(), folder.create()
    old.append([chunk(b"old")])
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    young.append([chunk(b"young")])
    assert folder.sweep(older_than_seconds=60) == 1
    assert len(list(tmp_path.iterdir())) == 1
    young.discard()
    assert not list(tmp_path.iterdir())


def test_spans_join_neighbours_only() -> None:
    refs = [ref("a", 0, 5), ref("a", 5, 5), ref("a", 11, 1), ref("b", 12, 1), ref("b", 0, 1)]
    spans = list(plan_spans(refs))
    assert [(span.pack, span.offset, span.length) for span in spans] == [
        ("a", 0, 10),
        ("a", 11, 1),
        ("b", 12, 1),
        ("b", 0, 1),
    ]
    mib = 1024 * 1024
    long = list(plan_spans(ref("a", index * mib, mib) for index in range(9)))
    assert [span.length for span in long] == [SPAN_BYTES, SPAN_BYTES, mib]


def test_a_failing_disk_is_told_as_unavailable(tmp_path: Path) -> None:
    folder = PackFolder(tmp_path / "unfinished")
    (tmp_path / "unfinished").rmdir()
    (tmp_path / "unfinished").write_bytes(b"no folder any more")
    with pytest.raises(ServiceError) as caught:
        folder.create().append([chunk(b"x")])
    assert caught.value.reason is Reason.SERVICE_UNAVAILABLE
    assert str(tmp_path) not in caught.value.message
