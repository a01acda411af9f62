"""The same network, trained outside of the builder and logged as the torch module that it is.

Needs a running suite (`modelyard up`), torch, safetensors, scikit-learn and modelyard. Its weights
are written as safetensors; `modelyard deploy digits-module/1 --env ENVIRONMENT` serves them without
any code but the network's own.
"""

from __future__ import annotations

import modelyard
import torch
from network import Digits, accuracy, digits, fit

PARAMS = {"steps": 120, "rate": 0.02}


def main() -> None:
    train, test, train_labels, test_labels = digits()
    with modelyard.start_run("digits-module") as run:
        modelyard.log_params(PARAMS)
        torch.manual_seed(0)
        network = Digits()
        fit(network, train, train_labels, **PARAMS)
        modelyard.log_metric("accuracy", accuracy(network, test, test_labels))
        version = modelyard.log_model(network, example={"image": test[:2]})
    print(f"{run.name}\n{version.name}")


if __name__ == "__main__":
    main()
