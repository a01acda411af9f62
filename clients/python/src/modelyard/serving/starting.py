"""Starting: from a folder to an engine, told in the log, or to an exit code."""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from modelyard import bundle as bundles
from modelyard.bundle import BundleError
from modelyard.serving import unsafe
from modelyard.serving.engine import Engine
from modelyard.serving.loading import load_engine

logger = logging.getLogger(__name__)

REFUSED = 2
FAILED = 1


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be served: a bundle's folder, the model's id, the version's number."""

    bundle: Path
    name: str
    version: str


class LoadFailedError(Exception):
    """The model is not loaded, and why is in the log."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def start_engine(target: Target) -> Engine:
    """Load a bundle; raise LoadFailedError, with the process's exit code, when that fails."""
    facts = {"model": target.name, "version": target.version}
    logger.info("loading", extra={**facts, "bundle": str(target.bundle)})
    start = time.monotonic()
    try:
        bundle = bundles.read(target.bundle)
        with unsafe.policy():
            engine = load_engine(bundle, name=target.name, version=target.version)
    except BundleError as error:
        logger.error("bundle refused", extra={**facts, "problem": str(error)})
        raise LoadFailedError(REFUSED) from error
    except Exception as error:  # the model is the user's code and may raise anything
        logger.exception("load failed", extra=facts)
        raise LoadFailedError(FAILED) from error
    # What is loaded stays: to look it all over again takes 60 ms with scikit-learn alone, and
    # whoever asks meanwhile waits.
    gc.collect()
    gc.freeze()
    logger.info("loaded", extra={**facts, "seconds": round(time.monotonic() - start, 3)})
    return engine
