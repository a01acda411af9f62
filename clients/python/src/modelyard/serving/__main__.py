"""Run the model server: `python -m modelyard.serving --bundle DIR --name MODEL --version N …`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path

from modelyard import bundle as bundles
from modelyard.bundle import BundleError
from modelyard.serving.loading import load_engine
from modelyard.serving.server import Address, serve

logger = logging.getLogger("modelyard.serving")

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """Write each record as one JSON object a line, tracebacks and all."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "message": record.getMessage(),
            **{key: value for key, value in record.__dict__.items() if key not in _PLAIN},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def main(arguments: list[str] | None = None) -> int:
    """Load the bundle and serve it until told to stop; return the exit code."""
    options = _parser().parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    facts = {"model": options.name, "version": options.version}
    logger.info("loading", extra={**facts, "bundle": str(options.bundle)})
    start = time.monotonic()
    try:
        engine = load_engine(
            bundles.read(options.bundle),
            name=options.name,
            version=options.version,
            concurrency=options.concurrency,
            queue=options.queue,
        )
    except BundleError as error:
        logger.error("bundle refused", extra={**facts, "problem": str(error)})
        return 2
    except Exception:  # the model is the user's code and may raise anything
        logger.exception("load failed", extra=facts)
        return 1
    logger.info("loaded", extra={**facts, "seconds": round(time.monotonic() - start, 3)})
    address = Address(options.host, options.http_port, options.grpc_port)
    _run(serve(engine, address, ports_file=options.ports_file))
    return 0


def _run(service: Coroutine[None, None, None]) -> None:
    """Run the service on uvloop where there is one."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - absent on Windows
    except ModuleNotFoundError:
        asyncio.run(service)
    else:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(service)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelyard.serving", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--name", required=True, help="the model's id")
    parser.add_argument("--version", required=True, help="the version's number")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http-port", type=int, default=0, help="0: any free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any free one")
    parser.add_argument("--ports-file", type=Path, help="where to write the ports, as JSON")
    parser.add_argument("--concurrency", type=int, default=2, help="predictions at once")
    parser.add_argument("--queue", type=int, default=128, help="requests that may wait")
    return parser


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: a prediction that outlived the drain must not keep the process alive.
    os._exit(code)
