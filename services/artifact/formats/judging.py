"""Judging files: the first family of formats that recognises one decides, never its name alone."""

from __future__ import annotations

from typing import BinaryIO

from services.artifact.formats.domain import Analyser, Finding, Verdict, allowed, unverified
from services.artifact.formats.onnx_graph import onnx_model
from services.artifact.formats.pickles import archives, bare, compressed, is_archive
from services.artifact.formats.tensors import numpy_array, safetensors, tables
from services.artifact.formats.texts import text

VERSION = 3
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
            return _not_two(finding, file)
    return unverified("?", "its format is not known")


def _not_two(finding: Finding, file: BinaryIO) -> Finding:
    """Vouch for no file that some programs take for something else: zip is read from the end."""
    is_zip = finding.format.startswith("zip")
    if finding.verdict is not Verdict.ALLOWED or is_zip or not is_archive(file):
        return finding
    return unverified(finding.format, "it is a zip archive too")
