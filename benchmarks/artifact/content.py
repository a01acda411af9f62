"""What is sent: random trees, second versions of them, fine-tuned safetensors."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

MIB = 1024 * 1024


def large(folder: Path, size: int) -> None:
    """Make a tree of one random file."""
    folder.mkdir(exist_ok=True)
    with (folder / "model.bin").open("wb") as file:
        for _ in range(size // (16 * MIB)):
            file.write(os.urandom(16 * MIB))


def small(folder: Path) -> None:
    """Make a tree of 1,000 random files of 100 KB."""
    folder.mkdir(exist_ok=True)
    for number in range(1_000):
        (folder / f"{number:04}.bin").write_bytes(os.urandom(100_000))


def change(folder: Path, share: float, *, places: int) -> None:
    """Overwrite a share of the file, in so many places."""
    path = folder / "model.bin"
    size = path.stat().st_size
    each = int(size * share / places)
    with path.open("r+b") as file:
        for place in range(places):
            file.seek(size // places * place + random.randrange(size // places - each))  # noqa: S311
            file.write(os.urandom(each))


def insert(folder: Path, share: float) -> None:
    """Put new bytes into the file's first third."""
    path, new = folder / "model.bin", folder / "new"
    size = path.stat().st_size
    with path.open("rb") as file, new.open("wb") as target:
        target.write(file.read(size // 3))
        target.write(os.urandom(int(size * share)))
        while data := file.read(16 * MIB):
            target.write(data)
    new.replace(path)


def tensors(folder: Path, *, count: int, size: int, changed: bool) -> None:
    """Write a safetensors file; changed: every tenth tensor is another one."""
    folder.mkdir(exist_ok=True)
    header = {
        f"model.layers.{number}.weight": {
            "dtype": "BF16",
            "shape": [size // 2],
            "data_offsets": [number * size, (number + 1) * size],
        }
        for number in range(count)
    }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number in range(count):
            source = random.Random(number + count * (changed and number % 10 == 0))  # noqa: S311
            file.write(source.randbytes(size))
