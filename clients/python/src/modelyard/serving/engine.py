"""The engine: the loaded model, asked for the answer to one request at a time and thread."""

from __future__ import annotations

import logging

from modelyard.bundle import Predictor
from modelyard.serving.domain import Description, Refusal, Request, ServingError, invalid
from modelyard.serving.tensors import Array, TensorError, as_text, datatype_of

logger = logging.getLogger(__name__)


class Engine:
    """Answers requests with one loaded model."""

    def __init__(self, predictor: Predictor, description: Description) -> None:
        self.description = description
        self._predictor = predictor

    def answer(self, request: Request) -> dict[str, Array]:
        """Predict; may be called from several threads.

        Raises:
            ServingError: INVALID for what the caller can mend, FAILED for what the model did.
        """
        outputs = self._predict(self._inputs(request))
        unknown = [name for name in request.outputs if name not in outputs]
        if unknown:
            raise invalid(f"no output {unknown[0]!r}: there are {', '.join(outputs)}")
        return {name: outputs[name] for name in request.outputs or outputs}

    def _inputs(self, request: Request) -> dict[str, Array]:
        known = self.description.inputs
        missing = [tensor.name for tensor in known if tensor.name not in request.inputs]
        if missing:
            raise invalid(f"input {missing[0]!r} is missing")
        arrays: dict[str, Array] = {}
        for name, tensor in request.inputs.items():
            is_text = tensor.is_text or name in self.description.text_inputs
            try:
                bytes_are_text = is_text and tensor.array.dtype.kind == "O"
                arrays[name] = as_text(tensor.array) if bytes_are_text else tensor.array
            except TensorError as error:
                raise invalid(f"input {name!r}: {error}") from None
        return arrays

    def _predict(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            outputs = self._predictor.predict(inputs)
            for array in outputs.values():
                datatype_of(array)
        except Exception:
            # The model is the user's code: whatever it raises is its failure, and told to the
            # operator only, because the text may hold what the caller must not see.
            logger.exception("prediction failed")
            raise ServingError(Refusal.FAILED, "the model failed to predict") from None
        return outputs
