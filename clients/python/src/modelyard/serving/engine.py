"""The engine: the loaded model, asked for the answer to one request at a time and thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from modelyard.bundle import Predictor
from modelyard.serving.domain import Description, Refusal, Request, ServingError, invalid
from modelyard.serving.tensors import Array, TensorError, as_text, datatype_of

logger = logging.getLogger(__name__)

Inputs = dict[str, Array]
Answer = dict[str, Array]


class Engine:
    """Answers requests with one loaded model."""

    def __init__(self, predictor: Predictor, description: Description) -> None:
        self.description = description
        self._predictor = predictor

    def answer(self, request: Request) -> Answer:
        """Predict; may be called from several threads.

        Raises:
            ServingError: INVALID for what the caller can mend, FAILED for what the model did.
        """
        return _selected(self._predict(self._inputs(request)), request)

    def answer_all(self, requests: Sequence[Request]) -> list[tuple[Answer | ServingError, int]]:
        """Predict together what can be joined; return each answer, and how many came together.

        When the model fails on joined requests, or its answer cannot be taken apart, each is
        predicted alone: a bad one harms no other.
        """
        found: dict[int, tuple[Answer | ServingError, int]] = {}
        groups: dict[Any, dict[int, Inputs]] = {}
        for index, request in enumerate(requests):
            try:
                inputs = self._inputs(request)
            except ServingError as error:
                found[index] = error, 1
            else:
                groups.setdefault(_shape_of(inputs) or index, {})[index] = inputs
        for group in groups.values():
            parts = self._together(list(group.values())) if len(group) > 1 else None
            size = 1 if parts is None else len(group)
            for place, (index, inputs) in enumerate(group.items()):
                outputs = None if parts is None else parts[place]
                found[index] = self._finished(requests[index], inputs, outputs), size
        return [found[index] for index in range(len(requests))]

    def _finished(
        self, request: Request, inputs: Inputs, outputs: Answer | None
    ) -> Answer | ServingError:
        try:
            return _selected(self._predict(inputs) if outputs is None else outputs, request)
        except ServingError as error:
            return error

    def _together(self, requests: list[Inputs]) -> list[Answer] | None:
        """Predict the rows of all requests at once; None when that does not work."""
        counts = [len(next(iter(inputs.values()))) for inputs in requests]
        joined = {name: np.concatenate([each[name] for each in requests]) for name in requests[0]}
        try:
            outputs = self._predict(joined)
        except ServingError:
            return None
        if any(array.ndim == 0 or len(array) != sum(counts) for array in outputs.values()):
            logger.warning("answers to joined requests cannot be taken apart: batching is no use")
            return None
        ends = list(accumulate(counts))
        return [
            {name: array[end - count : end] for name, array in outputs.items()}
            for count, end in zip(counts, ends, strict=True)
        ]

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


def _selected(outputs: Answer, request: Request) -> Answer:
    """Return the outputs that were asked for."""
    unknown = [name for name in request.outputs if name not in outputs]
    if unknown:
        raise invalid(f"no output {unknown[0]!r}: there are {', '.join(outputs)}")
    return {name: outputs[name] for name in request.outputs or outputs}


def _shape_of(inputs: Inputs) -> Any:
    """Return what requests that can be joined have in common; None when these cannot be."""
    rows = {len(array) if array.ndim else -1 for array in inputs.values()}
    if len(rows) != 1 or min(rows) < 1:
        return None
    return tuple(
        (name, array.dtype.str, array.shape[1:], type(array.flat[0]) if array.size else None)
        for name, array in inputs.items()
    )
