"""Load a bundle afresh and predict its example, as the model server will: the smoke test.

Exit code 0: it answered, or it has no example and that is said. 1: it failed, and why is said.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from modelyard import bundle as bundles
from modelyard.bundle import BundleError
from modelyard.serving.loading import load_engine


def main(arguments: list[str]) -> int:
    """Try a bundle and return the exit code."""
    parser = argparse.ArgumentParser(prog="modelyard.building.smoke")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    options = parser.parse_args(arguments)
    try:
        print(try_bundle(options.bundle.absolute()))
    except BundleError as error:
        print(f"smoke test failed: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        print("smoke test failed: the model cannot be loaded", file=sys.stderr)
        return 1
    return 0


def try_bundle(directory: Path) -> str:
    """Load a bundle, predict its example and say in a line what came of it.

    Raises:
        BundleError: It is no bundle, or the model failed on its example.
    """
    bundle = bundles.read(directory)
    outputs = load_engine(bundle, name=bundle.model, version="0").description.outputs
    if bundle.example is None:
        return "the model loads; it has no example, so nothing was predicted"
    if not outputs:
        raise BundleError("the model failed on its own example")
    shapes = ", ".join(f"{o.name} {o.datatype} {list(o.shape)}" for o in outputs)
    return f"the model answers its example: {shapes}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
