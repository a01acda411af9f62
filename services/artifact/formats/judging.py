"""Judging files: the first family of formats that recognises one decides, never its name alone."""

from __future__ import annotations

from typing import BinaryIO

from services.artifact.formats.domain import Analyser, Finding, allowed, unverified
from services.artifact.formats.onnx_graph import onnx_model
from services.artifact.formats.pickles import archives, bare, compressed
from services.artifact.formats.tensors import numpy_array, safetensors, tables
from services.artifact.formats.texts import text

VERSION = 1
"""Rises with every change of what is recognised: earlier findings are made anew."""
HEAD_BYTES = 64 * 1024

ANALYSERS: tuple[Analyser, ...] = (
    bare,
    archives,
    compressed,
    numpy_array,
    tables,
    safetensors,
    text,
    onnx_model,
)


def judge(path: str, size: int, file: BinaryIO) -> Finding:
    """Say what a file is, what may be made of it, and why; nothing in it is run or built."""
    if not size:
        return allowed("empty")
    head = file.read(HEAD_BYTES)
    for analyser in ANALYSERS:
        finding = analyser(path, size, head, file)
        if finding is not None:
            return finding
    return unverified("?", "its format is not known")
