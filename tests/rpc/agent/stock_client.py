"""Ask for predictions with tritonclient, an independent client; run in an environment of its own.

`python stock_client.py HOST:PORT MODEL`: prints the answers as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http


def main() -> None:
    address, model = sys.argv[1:]
    answers = {}
    for protocol, module in (("http", tritonclient.http), ("grpc", tritonclient.grpc)):
        client = module.InferenceServerClient(address)
        rows = np.array([[1.0, 2.0], [3.0, 4.0]])
        tensor = module.InferInput("x", rows.shape, "FP64")
        tensor.set_data_from_numpy(rows)
        answer = client.infer(model, [tensor])
        response = answer.get_response()
        version = response["model_version"] if protocol == "http" else response.model_version
        answers[protocol] = {
            "health": [client.is_server_live(), client.is_server_ready()],
            "ready": client.is_model_ready(model),
            "version": version,
            "total": answer.as_numpy("total").tolist(),
        }
        client.close()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
