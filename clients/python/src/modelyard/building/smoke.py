"""Load a bundle afresh and predict its example, as the model server will: the smoke test.

Exit code 0: it answered, or it has no example and that is said. 1: it failed, and why is said.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

from modelyard import bundle as bundles
from modelyard.bundle import BundleError
from modelyard.serving.domain import TensorDescription
from modelyard.serving.loading import load_engine


def main(arguments: list[str]) -> int:
    """Try a bundle and return the exit code."""
    parser = argparse.ArgumentParser(prog="modelyard.building.smoke")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--schema", type=Path, help="where to write the model's schema, as JSON")
    options = parser.parse_args(arguments)
    try:
        print(try_bundle(options.bundle.absolute(), schema=options.schema))
    except BundleError as error:
        print(f"smoke test failed: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        print("smoke test failed: the model cannot be loaded", file=sys.stderr)
        return 1
    return 0


def try_bundle(directory: Path, *, schema: Path | None = None) -> str:
    """Load a bundle, predict its example and say in a line what came of it.

    What goes in and comes out is written to `schema`, as Open Inference Protocol metadata has it.

    Raises:
        BundleError: It is no bundle, or the model failed on its example.
    """
    bundle = bundles.read(directory)
    description = load_engine(bundle, name=bundle.model, version="0").description
    inputs, outputs = description.inputs, description.outputs
    if bundle.example is None:
        return "the model loads; it has no example, so nothing was predicted"
    if not outputs:
        raise BundleError("the model failed on its own example")
    if schema is not None:
        tensors = {"inputs": inputs, "outputs": outputs}
        found = {key: [_plain(tensor) for tensor in some] for key, some in tensors.items()}
        schema.write_text(json.dumps(found))
    shapes = ", ".join(f"{o.name} {o.datatype} {list(o.shape)}" for o in outputs)
    return f"the model answers its example: {shapes}"


def _plain(tensor: TensorDescription) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
