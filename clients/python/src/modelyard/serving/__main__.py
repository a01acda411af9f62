"""Run the model server: `python -m modelyard.serving --bundle DIR --name MODEL --version N …`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import Coroutine
from pathlib import Path

from modelyard.serving import logs
from modelyard.serving.batching import Batching
from modelyard.serving.engine import Engine
from modelyard.serving.gate import Gate, Runner
from modelyard.serving.metrics import Metrics
from modelyard.serving.pool import Pool
from modelyard.serving.sampling import Sampler, SamplingPlan
from modelyard.serving.server import Address, serve, stop_signal
from modelyard.serving.starting import FAILED, LoadFailedError, Target, start_engine
from modelyard.serving.threads import BatchedThreads, Threads


def main(arguments: list[str] | None = None) -> int:
    """Load the bundle and serve it until told to stop; return the exit code."""
    options = _parser().parse_args(arguments)
    logs.configure()
    target = Target(options.bundle.absolute(), options.name, options.version)
    try:
        if options.workers > 1:
            return _run(_serve_by_workers(target, options))
        runner = _runner(start_engine(target), options)
        return _run(_serve_by_threads(runner, options))
    except LoadFailedError as error:
        return error.code


async def _serve_by_threads(runner: Runner, options: argparse.Namespace) -> int:
    metrics = Metrics()
    sampler = _sampler(options, metrics)
    gate = Gate(runner, metrics, queue=options.queue, sampler=sampler)
    await serve(gate, _address(options), stop_signal(), ports_file=options.ports_file)
    return 0


async def _serve_by_workers(target: Target, options: argparse.Namespace) -> int:
    metrics, stop, dead = Metrics(), stop_signal(), asyncio.Event()
    workers, concurrency = options.workers, options.concurrency
    pool = Pool(
        target,
        workers=workers,
        concurrency=concurrency,
        batching=_batching(options),
        metrics=metrics,
    )

    def end() -> None:
        dead.set()
        stop.set()

    try:
        opening = asyncio.create_task(pool.open(end))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():  # told to stop while it loads
            opening.cancel()
            return 0
        await opening
        sampler = _sampler(options, metrics)
        gate = Gate(pool, metrics, queue=options.queue * workers, sampler=sampler)
        await serve(gate, _address(options), stop, ports_file=options.ports_file)
    finally:
        pool.close()
    return FAILED if dead.is_set() else 0


def _runner(engine: Engine, options: argparse.Namespace) -> Runner:
    batching = _batching(options)
    if batching.is_on:
        return BatchedThreads(engine, concurrency=options.concurrency, batching=batching)
    return Threads(engine, concurrency=options.concurrency)


def _batching(options: argparse.Namespace) -> Batching:
    return Batching(options.batch_size, options.batch_delay)


def _sampler(options: argparse.Namespace, metrics: Metrics) -> Sampler | None:
    if options.samples is None:
        return None
    plan = SamplingPlan(options.samples, options.sample_share, options.sample_rate)
    return Sampler(plan, on_dropped=metrics.count_dropped_sample)


def _address(options: argparse.Namespace) -> Address:
    return Address(options.host, options.http_port, options.grpc_port)


def _run(service: Coroutine[None, None, int]) -> int:
    """Run the service on uvloop where there is one."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - absent on Windows
    except ModuleNotFoundError:
        return asyncio.run(service)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(service)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelyard.serving", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--name", required=True, help="the model's id")
    parser.add_argument("--version", required=True, help="the version's number")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http-port", type=int, default=0, help="0: any free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any free one")
    parser.add_argument("--ports-file", type=Path, help="where to write the ports, as JSON")
    parser.add_argument("--workers", type=_positive, default=1, help="processes that predict")
    parser.add_argument(
        "--concurrency", type=_positive, default=1, help="predictions at once in each"
    )
    parser.add_argument("--queue", type=int, default=64, help="requests that may wait for each")
    parser.add_argument(
        "--batch-size", type=_positive, default=1, help="requests predicted together, at most"
    )
    parser.add_argument(
        "--batch-delay", type=float, default=0.0, help="seconds that the first waits for more"
    )
    parser.add_argument("--samples", type=Path, help="the folder that samples are written to")
    parser.add_argument("--sample-share", type=float, default=1.0, help="of the requests")
    parser.add_argument("--sample-rate", type=float, default=100.0, help="rows a second at most")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: a prediction that outlived the drain must not keep the process alive.
    os._exit(code)
