"""What files are, by their content: an allow-list that names never outrank."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from typing import Any

import pytest

from services.artifact.formats.domain import Finding, Verdict
from services.artifact.formats.judging import judge

ALLOWED, UNVERIFIED, UNSAFE = Verdict.ALLOWED, Verdict.UNVERIFIED, Verdict.UNSAFE


class Shell:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def look(path: str, data: bytes) -> Finding:
    return judge(path, len(data), io.BytesIO(data))


def tensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def whole(data: bytes) -> dict[str, Any]:
    return {"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(descr: str) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}\n".encode()
    data = bytes(4 if descr == "<f4" else 8)
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


ONE = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
GRAPH = field(7, field(5, field(8, b"w")))
OPSET = field(8, field(1, b"ai.onnx") + b"\x10\x11")


@pytest.mark.parametrize(
    ("path", "data", "verdict"),
    [
        ("model.safetensors", tensors(ONE, bytes(8)), ALLOWED),
        ("renamed.bin", tensors({**ONE, "__metadata__": {"a": "b"}}, bytes(8)), ALLOWED),
        ("model.safetensors", tensors(ONE, bytes(9)), UNVERIFIED),
        ("model.safetensors", tensors(ONE, bytes(7)), UNVERIFIED),
        ("model.safetensors", tensors({"w": {"dtype": "F32"}}, b""), UNVERIFIED),
        ("model.safetensors", b"\xff" * 40, UNVERIFIED),
        ("model.safetensors", pickle.dumps(Shell()), UNSAFE),
        ("state.pkl", pickle.dumps({"a": 1}), UNSAFE),
        ("state.json", pickle.dumps(Shell(), protocol=2), UNSAFE),
        ("state.bin", pickle.dumps(Shell(), protocol=0), UNSAFE),
        ("model.pt", zipped(**{"m/data.pkl": pickle.dumps(Shell()), "m/data/0": b"x"}), UNSAFE),
        ("arrays.npz", zipped(**{"a.npy": npy("<f4")}), ALLOWED),
        ("arrays.npz", zipped(**{"a.npy": npy("<f4"), "b.npy": npy("|O")}), UNSAFE),
        ("any.zip", zipped(a=b"x"), UNVERIFIED),
        ("a.npy", npy("<f8"), ALLOWED),
        ("a.npy", npy("|O"), UNSAFE),
        ("model.onnx", b"\x08\x0a" + GRAPH + OPSET, ALLOWED),
        ("m", b"\x08\x0a" + GRAPH + field(8, field(1, b"com.acme")), UNVERIFIED),
        ("m", b"\x08\x0a" + field(7, field(5, b"\x70\x01")), UNVERIFIED),
        ("model.onnx", b"\x08\x0a" + GRAPH + b"\xff", UNVERIFIED),
        ("a.npy", npy("<f8")[:-1], UNVERIFIED),
        ("a.npy", npy("<f8") + pickle.dumps(Shell()), UNVERIFIED),
        ("weights.gguf", b"GGUF" + bytes(20), UNVERIFIED),
        ("table.parquet", b"PAR1" + bytes(20) + b"PAR1", ALLOWED),
        ("table.parquet", b"PAR1" + bytes(20), UNVERIFIED),
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(20), UNVERIFIED),
        ("model.joblib", b"\x1f\x8b" + bytes(20), UNVERIFIED),
        ("metrics.json", b'{"a": 1}', ALLOWED),
        ("notes.md", "ünï".encode(), ALLOWED),
        ("model.py", b"x = 1", UNVERIFIED),
        ("LICENSE", b"#!/bin/sh", UNVERIFIED),
        ("blob", b"\x01\x02\x03", UNVERIFIED),
        ("empty", b"", ALLOWED),
    ],
)
def test_verdicts(path: str, data: bytes, verdict: Verdict) -> None:
    finding = look(path, data)
    assert finding.verdict is verdict, finding
    assert bool(finding.reasons) is (verdict is not ALLOWED)


ARCHIVE = zipped(**{"m/data.pkl": pickle.dumps(Shell())})
OVERLONG = b"(lp0\n" + b"S'aaaaaaaaaa'\na" * 10_000


@pytest.mark.parametrize(
    ("path", "data", "verdict"),
    [
        ("m.safetensors", tensors(whole(ARCHIVE), ARCHIVE), UNVERIFIED),
        ("t.parquet", b"PAR1" + ARCHIVE + b"PAR1", UNVERIFIED),
        ("t.arrow", b"ARROW1" + ARCHIVE + b"ARROW1", UNVERIFIED),
        ("notes.md", b"hello" + zipped(a=b"plain text"), UNVERIFIED),
        ("a.npz", zipped(**{"a.npy": npy("<f4")}) + pickle.dumps(Shell()), UNVERIFIED),
        ("a.npz", pickle.dumps(Shell()) + zipped(**{"a.npy": npy("<f4")}), UNSAFE),
        ("a.zip", zipped(**{"b.zip": ARCHIVE}), UNVERIFIED),
        ("a.txt", b"N0" + pickle.dumps(Shell(), protocol=0), UNSAFE),
        ("a.json", b"S'x'\n0" + pickle.dumps(Shell(), protocol=0), UNSAFE),
        ("a.csv", OVERLONG + pickle.dumps(Shell(), protocol=0), UNSAFE),
        ("a.txt", b"all that is said here.\n", ALLOWED),
        ("a.txt", b"call me\nnow.\nPlease.", ALLOWED),
    ],
)
def test_a_file_that_is_two_things_is_not_allowed(path: str, data: bytes, verdict: Verdict) -> None:
    assert look(path, data).verdict is verdict


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]},
    ],
)
def test_tensors_have_counts(tensor: dict[str, Any]) -> None:
    assert look("m.safetensors", tensors({"w": tensor}, bytes(8))).verdict is UNVERIFIED


def test_a_tensor_is_described_once() -> None:
    one = json.dumps(ONE)[1:-1]
    header = f"{{{one},{one}}}".encode()
    data = len(header).to_bytes(8, "little") + header + bytes(8)
    assert look("m.safetensors", data).verdict is UNVERIFIED


def test_reasons_name_what_would_be_called() -> None:
    assert "calls posix.system" in look("x", pickle.dumps(Shell(), protocol=5)).reasons
    assert "calls posix.system" in look("x", pickle.dumps(Shell(), protocol=2)).reasons


def test_a_bomb_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(300 * 1024 * 1024))
    assert look("bomb.zip", buffer.getvalue()).verdict is UNVERIFIED


def test_what_would_take_for_ever_is_given_up() -> None:
    """Each of these took minutes, or hundreds of megabytes, to be looked through."""
    many, members, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(20):
            archive.writestr(f"{number}.pkl", b"(" + b"N" * 300_000)
    with zipfile.ZipFile(members, "w") as archive:
        archive.writestr("a", b"")
        archive.filelist *= 95_000
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", npy("<f4"))
    assert look("many.zip", many.getvalue()).reasons == ("it is too long to be looked through",)
    assert look("members.zip", members.getvalue()) == TOO_MUCH
    assert look("packed.zip", packed.getvalue()).verdict is UNVERIFIED
    assert look("old.txt", b"N" * 300_000).verdict is UNSAFE
    assert look("new.pkl", b"\x80\x04" + b"N" * 300_000).verdict is UNSAFE


TOO_MUCH = Finding("zip", UNVERIFIED, ("it is too much to be looked through",))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_noise_is_never_allowed_and_never_fails() -> None:
    noise = random.Random(1)  # noqa: S311 - a test's noise
    starts = (b"", b"\x08\x0a", b"PK\x03\x04", b"\x80\x04", b"\x93NUMPY\x01\x00", b"(")
    for number in range(600):
        data = starts[number % len(starts)] + noise.randbytes(noise.randrange(1, 400))
        assert look("noise.bin", data).verdict is not ALLOWED, data
