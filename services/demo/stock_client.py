"""Asks a live model over HTTP and gRPC with `tritonclient`, which is not ours.

Run in an environment of its own: `stock_client.py ADDRESS MODEL REQUEST_JSON`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

DTYPES = {"FP64": "float64", "FP32": "float32", "INT64": "int64", "INT32": "int32"}


def ask(module: Any, address: str, model: str, request: dict[str, Any]) -> str:
    """Ask once; return the version and the first output."""
    import numpy as np  # noqa: PLC0415 - of the client's environment

    client = module.InferenceServerClient(url=address)
    inputs = []
    for tensor in request["inputs"]:
        data = np.array(tensor["data"], dtype=DTYPES[tensor["datatype"]])
        item = module.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        item.set_data_from_numpy(data.reshape(tensor["shape"]))
        inputs.append(item)
    result = client.infer(model, inputs)
    response = result.get_response()
    if isinstance(response, dict):
        version, name = response["model_version"], response["outputs"][0]["name"]
    else:
        version, name = response.model_version, response.outputs[0].name
    return f"version {version} says {name} = {result.as_numpy(name).tolist()}"


def main() -> None:
    """Ask over both protocols and print what they say."""
    import tritonclient.grpc  # noqa: PLC0415 - of the client's environment
    import tritonclient.http  # noqa: PLC0415

    address, model, request = sys.argv[1:]
    print("HTTP:", ask(tritonclient.http, address, model, json.loads(request)))
    print("gRPC:", ask(tritonclient.grpc, address, model, json.loads(request)))


if __name__ == "__main__":
    main()
