"""Plans, serving and traffic: proto ↔ domain, pure; what a message may not say is refused here."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from itertools import pairwise

from google.protobuf import duration_pb2
from modelyard.deployer.v1 import rollout_pb2

from services.common.durations import length_of
from services.common.errors import invalid_field
from services.deployer.domain import Deployment
from services.deployer.rollouts import stepping
from services.deployer.rollouts.plans import (
    ALL_AT_ONCE,
    EVERYTHING,
    MAX_STEPS,
    Autoscaling,
    Batching,
    HeaderMatch,
    RolloutAnalysis,
    RolloutPlan,
    RolloutStep,
    Sampling,
    ServingSpec,
    Traffic,
)
from services.deployer.timestamps import timestamp

MAX_HOLD = timedelta(days=7)
MAX_PROGRESS = timedelta(days=1)
MAX_PREDICTION = timedelta(hours=1)
MAX_COUNT = 64
MAX_CONCURRENCY = 1_024
MAX_QUEUE = 65_536
MAX_REQUESTS = 1_000_000
MAX_BUCKETS = 128
MAX_COOLDOWN = timedelta(hours=1)
MIN_TARGET = 0.1
MAX_BATCH_DELAY = timedelta(seconds=1)
MAX_SAMPLE_RATE = 1_000
MAX_SAMPLE_ROWS = 100_000
MAX_SAMPLE_INTERVAL = timedelta(days=1)
_MAX_INT = 2**62
_HEADER_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
# What a proxy, the protocols or the model server read themselves, and what is secret.
_RESERVED_HEADERS = frozenset(
    (
        *("accept", "authorization", "connection", "content-encoding", "content-length"),
        *("content-type", "cookie", "expect", "forwarded", "host", "keep-alive"),
        *("modelyard-model", "modelyard-version", "te", "trailer", "transfer-encoding"),
        *("upgrade", "via", "x-request-id"),
    )
)
_RESERVED_PREFIXES = ("grpc-", "inference-header-", "proxy-", "x-envoy-", "x-forwarded-")


def decode_plan(message: rollout_pb2.RolloutPlan) -> RolloutPlan:
    """Decode how a version takes over, or refuse it."""
    analysis = _decode_analysis(message.analysis) if message.HasField("analysis") else None
    steps, progress = _decode_steps(message), message.progress_timeout
    if analysis is not None and len(steps) == 1:
        raise invalid_field("plan.analysis", "needs a step before the last one, to look at")
    return RolloutPlan(
        steps=steps,
        analysis=analysis,
        progress_seconds=_seconds(progress, MAX_PROGRESS, "plan.progress_timeout"),
        keep_previous_warm=message.keep_previous_warm,
    )


def _decode_steps(message: rollout_pb2.RolloutPlan) -> tuple[RolloutStep, ...]:
    if not message.steps:
        return ALL_AT_ONCE
    steps = tuple(
        RolloutStep(
            step.weight, _seconds(step.hold, MAX_HOLD, f"plan.steps[{index}].hold"), step.manual
        )
        for index, step in enumerate(message.steps)
    )
    weights = [step.weight for step in steps]
    rising = all(a < b for a, b in pairwise(weights))
    if len(steps) > MAX_STEPS or not rising or weights[0] < 1 or weights[-1] != EVERYTHING:
        problem = f"must be at most {MAX_STEPS}, of rising weights from 1 to {EVERYTHING}"
        raise invalid_field("plan.steps", problem)
    if steps[-1].manual or steps[-1].hold_seconds:
        raise invalid_field("plan.steps", "the last step waits for nothing")
    return steps


def _decode_analysis(message: rollout_pb2.RolloutAnalysis) -> RolloutAnalysis:
    field = "plan.analysis"
    latency = message.max_p95_latency
    analysis = RolloutAnalysis(
        min_request_count=_count(
            message.min_request_count, MAX_REQUESTS, f"{field}.min_request_count", least=1
        ),
        max_error_rate=_rate(message, "max_error_rate"),
        max_error_rate_increase=_rate(message, "max_error_rate_increase"),
        max_p95_seconds=_seconds(latency, MAX_PREDICTION, f"{field}.max_p95_latency") or None,
        max_p95_ratio=_rate(message, "max_p95_latency_ratio", least=1.0, most=1_000.0),
    )
    if analysis == RolloutAnalysis(analysis.min_request_count):
        raise invalid_field(field, "must hold a limit of errors or of latency")
    return analysis


def _rate(
    message: rollout_pb2.RolloutAnalysis, name: str, *, least: float = 0.0, most: float = 1.0
) -> float | None:
    if not message.HasField(name):  # type: ignore[arg-type]  # its names are literals there
        return None
    value = float(getattr(message, name))
    if not least <= value <= most:
        raise invalid_field(f"plan.analysis.{name}", f"must be from {least:g} to {most:g}")
    return value


def decode_serving(message: rollout_pb2.ServingSpec) -> ServingSpec:
    """Decode how a version is served, or refuse it."""
    cores = message.cpu_cores
    if not (math.isfinite(cores) and 0 <= cores <= MAX_CONCURRENCY):
        raise invalid_field("serving.cpu_cores", f"must be from 0 to {MAX_CONCURRENCY}")
    return ServingSpec(
        replica_count=_count(message.replica_count, MAX_COUNT, "serving.replica_count") or 1,
        worker_count=_count(message.worker_count, MAX_COUNT, "serving.worker_count") or 1,
        concurrency=_count(message.concurrency, MAX_CONCURRENCY, "serving.concurrency"),
        queue_size=_count(message.queue_size, MAX_QUEUE, "serving.queue_size"),
        cpu_cores=cores,
        memory_bytes=_count(message.memory_bytes, _MAX_INT, "serving.memory_bytes"),
        timeout_seconds=_seconds(message.timeout, MAX_PREDICTION, "serving.timeout"),
        sampling=_decode_sampling(message.sampling) if message.HasField("sampling") else None,
        batching=_decode_batching(message.batching) if message.HasField("batching") else None,
        autoscaling=_decode_autoscaling(message.autoscaling)
        if message.HasField("autoscaling")
        else None,
    )


def _decode_autoscaling(message: rollout_pb2.Autoscaling) -> Autoscaling:
    field, target = "serving.autoscaling", message.target_concurrency
    least = _count(message.min_replica_count, MAX_COUNT, f"{field}.min_replica_count") or 1
    most = message.max_replica_count
    if not (target == 0 or MIN_TARGET <= target <= MAX_QUEUE):
        problem = f"must be 0, or from {MIN_TARGET:g} to {MAX_QUEUE:,}"
        raise invalid_field(f"{field}.target_concurrency", problem)
    cooldown = _seconds(message.cooldown, MAX_COOLDOWN, f"{field}.cooldown")
    return Autoscaling(
        min_count=least,
        max_count=_count(most, MAX_COUNT, f"{field}.max_replica_count", least=least),
        target_concurrency=target,
        cooldown_seconds=max(1.0, cooldown) if cooldown else Autoscaling(1, 1).cooldown_seconds,
    )


def _decode_batching(message: rollout_pb2.Batching) -> Batching:
    field = "serving.batching"
    size = _count(message.max_size, MAX_CONCURRENCY, f"{field}.max_size", least=2)
    return Batching(size, _seconds(message.max_delay, MAX_BATCH_DELAY, f"{field}.max_delay"))


def _decode_sampling(message: rollout_pb2.Sampling) -> Sampling:
    field, plain = "serving.sampling", Sampling(1.0)
    if not 0 < message.share <= 1:
        raise invalid_field(f"{field}.share", "must be more than 0 and at most 1")
    rate = _count(message.max_rows_per_second, MAX_SAMPLE_RATE, f"{field}.max_rows_per_second")
    rows = _count(message.rows_per_version, MAX_SAMPLE_ROWS, f"{field}.rows_per_version")
    interval = _seconds(message.interval, MAX_SAMPLE_INTERVAL, f"{field}.interval")
    return Sampling(
        share=message.share,
        rows_per_second=rate or plain.rows_per_second,
        rows_per_version=rows or plain.rows_per_version,
        interval_seconds=max(1.0, interval) if interval else plain.interval_seconds,
    )


def decode_mirror_percent(value: int) -> int:
    """Decode the share of the requests that a shadow gets, or refuse it; 0: all of them."""
    return _count(value, EVERYTHING, "mirror_percent") or EVERYTHING


def decode_header_match(message: rollout_pb2.HeaderMatch) -> HeaderMatch:
    """Decode what requests must have to reach a preview, or refuse it."""
    name, value = message.name, message.value
    if not _HEADER_NAME.fullmatch(name):
        raise invalid_field("header_match.name", "must be 1 to 63 characters of [a-z0-9-]")
    if name in _RESERVED_HEADERS or name.startswith(_RESERVED_PREFIXES):
        raise invalid_field("header_match.name", f"{name} has a meaning of its own")
    if not _HEADER_VALUE.fullmatch(value):
        problem = "must be 1 to 256 visible ASCII characters, spaces only between them"
        raise invalid_field("header_match.value", problem)
    return HeaderMatch(name, value)


def encode_header_match(match: HeaderMatch | None) -> rollout_pb2.HeaderMatch | None:
    """Encode what requests must have to reach a preview."""
    return None if match is None else rollout_pb2.HeaderMatch(name=match.name, value=match.value)


def decode_traffic(message: rollout_pb2.VariantTraffic, field: str) -> Traffic:
    """Decode what was counted of a variant, or refuse it."""
    if len(message.latency_buckets) > MAX_BUCKETS:
        raise invalid_field(f"{field}.latency_buckets", f"must be at most {MAX_BUCKETS}")
    buckets = tuple((b.upper_milliseconds, b.cumulative_count) for b in message.latency_buckets)
    if any(not (a[0] < b[0] and a[1] <= b[1]) for a, b in pairwise([(-1.0, 0), *buckets])):
        raise invalid_field(f"{field}.latency_buckets", "must rise in bound and in count, from 0")
    requests = _count(message.request_count, _MAX_INT, f"{field}.request_count")
    return Traffic(requests, _count(message.error_count, _MAX_INT, f"{field}.error_count"), buckets)


def _count(value: int, most: int, field: str, *, least: int = 0) -> int:
    if not least <= value <= most:
        raise invalid_field(field, f"must be from {least:,} to {most:,}")
    return value


def _seconds(message: duration_pb2.Duration, most: timedelta, field: str) -> float:
    """Return a duration's seconds, 0 when it is not set."""
    return length_of(message, field, most=most).total_seconds()


def encode_plan(plan: RolloutPlan) -> rollout_pb2.RolloutPlan:
    """Encode how a version takes over."""
    message = rollout_pb2.RolloutPlan(
        steps=[_encode_step(step) for step in plan.steps],
        keep_previous_warm=plan.keep_previous_warm,
    )
    if plan.progress_seconds:
        message.progress_timeout.CopyFrom(_duration(plan.progress_seconds))
    if plan.analysis is not None:
        message.analysis.CopyFrom(_encode_analysis(plan.analysis))
    return message


def _encode_step(step: RolloutStep) -> rollout_pb2.RolloutStep:
    hold = _duration(step.hold_seconds) if step.hold_seconds else None
    return rollout_pb2.RolloutStep(weight=step.weight, hold=hold, manual=step.manual)


def _encode_analysis(analysis: RolloutAnalysis) -> rollout_pb2.RolloutAnalysis:
    latency = analysis.max_p95_seconds
    return rollout_pb2.RolloutAnalysis(
        min_request_count=analysis.min_request_count,
        max_error_rate=analysis.max_error_rate,
        max_error_rate_increase=analysis.max_error_rate_increase,
        max_p95_latency=None if latency is None else _duration(latency),
        max_p95_latency_ratio=analysis.max_p95_ratio,
    )


def encode_serving(serving: ServingSpec) -> rollout_pb2.ServingSpec:
    """Encode how a version is served."""
    timeout = _duration(serving.timeout_seconds) if serving.timeout_seconds else None
    sampling = serving.sampling
    return rollout_pb2.ServingSpec(
        replica_count=serving.replica_count,
        worker_count=serving.worker_count,
        concurrency=serving.concurrency,
        queue_size=serving.queue_size,
        cpu_cores=serving.cpu_cores,
        memory_bytes=serving.memory_bytes,
        timeout=timeout,
        sampling=None if sampling is None else _encode_sampling(sampling),
        batching=None if serving.batching is None else _encode_batching(serving.batching),
        autoscaling=None
        if serving.autoscaling is None
        else _encode_autoscaling(serving.autoscaling),
    )


def _encode_autoscaling(plan: Autoscaling) -> rollout_pb2.Autoscaling:
    return rollout_pb2.Autoscaling(
        min_replica_count=plan.min_count,
        max_replica_count=plan.max_count,
        target_concurrency=plan.target_concurrency,
        cooldown=_duration(plan.cooldown_seconds),
    )


def _encode_batching(batching: Batching) -> rollout_pb2.Batching:
    delay = _duration(batching.delay_seconds) if batching.delay_seconds else None
    return rollout_pb2.Batching(max_size=batching.max_size, max_delay=delay)


def _encode_sampling(sampling: Sampling) -> rollout_pb2.Sampling:
    return rollout_pb2.Sampling(
        share=sampling.share,
        max_rows_per_second=sampling.rows_per_second,
        rows_per_version=sampling.rows_per_version,
        interval=_duration(sampling.interval_seconds),
    )


def encode_traffic(traffic: Traffic | None) -> rollout_pb2.VariantTraffic | None:
    """Encode what was counted of a variant."""
    if traffic is None:
        return None
    return rollout_pb2.VariantTraffic(
        request_count=traffic.request_count,
        error_count=traffic.error_count,
        latency_buckets=[
            rollout_pb2.LatencyBucket(upper_milliseconds=bound, cumulative_count=count)
            for bound, count in traffic.buckets
        ],
    )


def encode_progress(deployment: Deployment, now: datetime) -> rollout_pb2.RolloutProgress | None:
    """Encode where an unfinished rollout stands; None when there is none."""
    wait = stepping.waits_for(deployment, now)
    if wait is None and not deployment.progress.step:
        return None
    finding = stepping.examine(deployment) if stepping.in_force(deployment) else None
    start = deployment.progress.start_time
    return rollout_pb2.RolloutProgress(
        revision=deployment.desired_revision,
        step=deployment.progress.step,
        step_count=len(stepping.steps(deployment)),
        step_start_time=timestamp(start) if start else None,
        wait=rollout_pb2.RolloutWait.Value(f"ROLLOUT_WAIT_{wait or 'UNSPECIFIED'}"),
        analysis=finding.explanation if finding else "",
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
