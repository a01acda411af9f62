"""Push an image to a registry: a program of its own, which the worker can end.

The order is a JSON object on standard input; the answer is one on standard output: the
reference of the image in the registry, or the problem in words for whoever ordered the build.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from modelyard import registries
from modelyard.errors import ModelyardError
from modelyard.images import ImageError


def answer(layout: str, target: str, auth_file: str) -> dict[str, str]:
    """Push, or say in words why not."""
    credentials = Path(auth_file) if auth_file else None
    try:
        parsed = registries.Target.parse(target)
        return {"reference": registries.push(Path(layout), parsed, auth_file=credentials)}
    except (registries.RegistryError, ImageError, ModelyardError, ValueError) as error:
        return {"problem": str(error)}


def main() -> None:
    """Do as standard input says."""
    json.dump(answer(**json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
