"""Run `Model.build` and write the bundle: the train phase's child process.

Exit code 0: the bundle is whole. 1: the model's code failed, with its traceback on stderr.
3: the source holds no model class, with one line on stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelyard.building.source import SourceInvalidError, find_model_class
from modelyard.bundle import BundleError
from modelyard.model import Context, Model
from modelyard.packing.writer import write_built
from modelyard.tracking import capture, records
from modelyard.tracking.spool import Appender
from modelyard.tracking.start import BUILD_SPOOL, active_run

EXIT_FAILED = 1
EXIT_SOURCE_INVALID = 3


def main(arguments: list[str]) -> int:
    """Train as the arguments say and return the exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a training prints is followed live
    try:
        _train(options)
    except SourceInvalidError as error:
        print(f"source invalid: {error}", file=sys.stderr)
        return EXIT_SOURCE_INVALID
    except BundleError as error:
        print(f"the model cannot be packed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BaseException:
        traceback.print_exc()
        return EXIT_FAILED
    return 0


def _train(options: argparse.Namespace) -> None:
    params: dict[str, Any] = json.loads(options.params.read_bytes())
    _log_surroundings(params)
    os.chdir(options.source)
    kind = find_model_class(options.source, options.entry)
    model = kind()
    model.build(Context(MappingProxyType(params), MappingProxyType(_folders(options.data))))
    options.out.mkdir(parents=True, exist_ok=True)
    write_built(
        options.out,
        model,
        entry=_entry(kind),
        source=options.source,
        name=options.name,
        lock=options.lock.read_bytes(),
    )


def _log_surroundings(params: dict[str, Any]) -> None:
    """Put the parameters and this environment on the run, before the model's code can fail."""
    run, directory = active_run(), os.environ.get(BUILD_SPOOL)
    if run is None or not directory:
        return
    run.log_params(params)
    appender = Appender(Path(directory))
    appender.append(records.encode(["e", capture.capture_environment()]))
    appender.close()


def _folders(data: Path | None) -> dict[str, Path]:
    return {path.name: path for path in sorted(data.iterdir())} if data and data.is_dir() else {}


def _entry(kind: type[Model]) -> str:
    return f"{kind.__module__}:{kind.__name__}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelyard.building.train")
    parser.add_argument("--source", type=_path, required=True, help="the source folder")
    parser.add_argument("--entry", default="", help="module:Class; else the one of model.py")
    parser.add_argument("--params", type=_path, required=True, help="a JSON object")
    parser.add_argument("--data", type=_path, help="a folder with one for each data input")
    parser.add_argument("--out", type=_path, required=True, help="the bundle's folder")
    parser.add_argument("--lock", type=_path, required=True, help="the environment's lock")
    parser.add_argument("--name", default="", help="the model's id")
    return parser


def _path(text: str) -> Path:
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
