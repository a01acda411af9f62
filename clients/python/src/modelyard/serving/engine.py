"""The engine: the loaded model, asked in a bounded thread pool.

At most `concurrency` predictions run and `queue` wait; what comes beyond is refused at once, so an
overloaded server answers quickly instead of slowly failing everyone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from modelyard.bundle import Predictor
from modelyard.serving.domain import Description, Refusal, Request, ServingError, invalid
from modelyard.serving.tensors import Array, TensorError, as_text, datatype_of

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """Answers requests with one loaded model."""

    def __init__(
        self, predictor: Predictor, description: Description, *, concurrency: int, queue: int
    ) -> None:
        self.description = description
        self._predictor = predictor
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="predict")
        self._places = threading.BoundedSemaphore(concurrency + queue)
        self._draining = False

    @property
    def ready(self) -> bool:
        """Say whether new requests are welcome."""
        return not self._draining

    def start_draining(self) -> None:
        """Say from now on that the server is not ready; what still comes is still answered."""
        self._draining = True

    async def run(self, work: Callable[[], T]) -> T:
        """Run decode, predict and encode of one request in a thread, or refuse it at once."""
        if not self._places.acquire(blocking=False):
            raise ServingError(Refusal.OVERLOADED, "too many requests wait: try again later")
        try:
            future = self._threads.submit(work)
        except RuntimeError:  # the pool is closed
            self._places.release()
            raise ServingError(Refusal.NOT_READY, "the server is going away") from None
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def answer(self, request: Request) -> dict[str, Array]:
        """Predict; called in a thread.

        Raises:
            ServingError: INVALID for what the caller can mend, FAILED for what the model did.
        """
        outputs = self._predict(self._inputs(request))
        unknown = [name for name in request.outputs if name not in outputs]
        if unknown:
            raise invalid(f"no output {unknown[0]!r}: there are {', '.join(outputs)}")
        return {name: outputs[name] for name in request.outputs or outputs}

    def close(self) -> None:
        """Let the threads end; the ones that predict are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

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
