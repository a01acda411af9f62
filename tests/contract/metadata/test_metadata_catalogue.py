"""The catalogue of bad input, names, pages and values, on both databases, with its side checks.

Each case says how it must end. Around each: a good call is answered at once afterwards, no
answer tells a path or a trace, nothing but the audit trail changed when it was refused, and
a refused write left an entry there.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard.metadata.v1 import audit_service_pb2 as audit_pb
from modelyard.metadata.v1 import audit_service_pb2_grpc, model_pb2, retention_pb2
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import retention_service_pb2 as retention_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb
from modelyard.metadata.v1 import signature_service_pb2 as signatures_pb

from services.metadata.settings import MetadataSettings
from tests.catalogue.sides import INVALID, OK, TOO_MUCH, Answer, Sides, changed, fingerprint
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, eventually

MODELS, RUNS = "modelyard.metadata.v1.ModelService", "modelyard.metadata.v1.RunService"

Case = tuple[str, str, Any, set[grpc.StatusCode]]


def model(model_id: str = "m", **fields: Any) -> models_pb.CreateModelRequest:
    return models_pb.CreateModelRequest(
        parent=PROJECT, model_id=model_id, model=model_pb2.Model(**fields)
    )


def listed(**fields: Any) -> models_pb.ListModelsRequest:
    return models_pb.ListModelsRequest(parent=PROJECT, **fields)


def runs(**fields: Any) -> runs_pb.ListRunsRequest:
    return runs_pb.ListRunsRequest(parent=MODEL, **fields)


def nested(depth: int) -> bytes:
    """Write a run with a parameter of lists within lists, as bytes."""
    value = b"\x08\x01"
    for _ in range(depth):
        value = b"\x2a" + _long(b"\x0a" + _long(value))
    return (
        b"\x0a"
        + _long(MODEL.encode())
        + b"\x1a"
        + _long(b"\x32" + _long(b"\x0a\x01k\x12" + _long(value)))
    )


def _long(raw: bytes) -> bytes:
    size, head = len(raw), bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + raw


def keep_for(seconds: int, nanos: int = 0) -> retention_pb.SetRetentionRequest:
    kept = retention_pb2.Retention(model=MODEL, keep_last_count=1)
    kept.keep_duration.seconds, kept.keep_duration.nanos = seconds, nanos
    return retention_pb.SetRetentionRequest(retention=kept)


def signature(sha256: str) -> bytes:
    version = f"{MODEL}/versions/1"
    return signatures_pb.GetSignatureRequest(version=version, sha256=sha256).SerializeToString()


SIGNED = "modelyard.metadata.v1.SignatureService/GetSignature"
GET = models_pb.GetModelRequest(name=MODEL)
CREATE, LIST = f"{MODELS}/CreateModel", f"{MODELS}/ListModels"
LIST_RUNS, RETAIN = f"{RUNS}/ListRuns", "modelyard.metadata.v1.RetentionService/SetRetention"
CASES: list[Case] = [
    *(("N01", CREATE, model(text), {INVALID}) for text in ("", "   ")),
    ("N02", CREATE, model("a" * 63), {OK}),
    ("N02", CREATE, model("a" * 64), {INVALID}),
    *(
        ("N03", CREATE, model(text), {INVALID})
        for text in ("a/b", "a%2Fb", "a:b", "a@b", "-a", ".a")
    ),
    *(("N04", CREATE, model(text), {INVALID}) for text in ("..", ".", "CON", "nul.txt")),
    ("N05", CREATE, model("n5", description="a\0b"), {INVALID}),
    ("N05", CREATE, model("n5", labels={"k": "a\0b"}), {INVALID}),
    *(("N06", CREATE, model(text), {INVALID}) for text in ("a\u202eb", "a\u200bb")),
    ("N08", CREATE, model("A"), {INVALID}),
    ("N09", CREATE, model("n9", labels={str(n): "" for n in range(10_000)}), {INVALID, TOO_MUCH}),
    ("N09", CREATE, model("n9", labels={"k" * 2**20: ""}), {INVALID, TOO_MUCH}),
    ("N09", CREATE, model("n9", description="x" * 5 * 2**20), {INVALID, TOO_MUCH}),
    ("N10", f"{RUNS}/CreateRun", nested(2_000), {INVALID}),
    ("N11", CREATE, b"\x12\x02\xff\xfe", {INVALID}),
    ("N11", CREATE, b"\x0a\xff\xff\xff\xff", {INVALID}),
    *(
        ("N12", CREATE, model("n12", metric_goals={"f1": number}), {INVALID})
        for number in (999, -1)
    ),
    *(
        ("N13", f"{MODELS}/GetVersion", f"{MODEL}/versions/{text}", {INVALID})
        for text in ("0", "-1", "01", "1e3", "latest ", str(2**63))
    ),
    ("P01", LIST, listed(page_size=-1), {INVALID}),
    ("P02", LIST, listed(page_size=2**31 - 1), {OK}),
    *(
        ("P03", LIST, listed(page_token=text), {INVALID})
        for text in ("x", "AAAA", "=" * 9, "A" * 9_000)
    ),
    *(
        ("P05", LIST_RUNS, runs(filter=text), {INVALID})
        for text in ('name = "x" OR 1=1 --', "'; DROP TABLE runs", 'a = "x"; --')
    ),
    ("P06", LIST, listed(filter='display_name : "%"'), {OK}),
    ("P07", LIST_RUNS, runs(filter="(" * 10_000), {INVALID}),
    ("P07", LIST_RUNS, runs(filter="x" * 2**20), {INVALID}),
    ("P07", LIST_RUNS, runs(filter="NOT " * 1_000 + "a = 1"), {INVALID}),
    *(
        ("P09", LIST_RUNS, runs(order_by=text), {INVALID})
        for text in ("colour", "1;select", "create_time,create_time")
    ),
    ("V05", RETAIN, keep_for(-1), {INVALID}),
    ("V05", RETAIN, keep_for(10_000 * 366 * 86_400), {INVALID}),
    ("V03", RETAIN, keep_for(1, nanos=2_000_000_000), {INVALID}),
    ("V03", RETAIN, keep_for(1, nanos=-1), {INVALID}),
    *(("N11", SIGNED, signature(text), {INVALID}) for text in ("", "\0", "A")),
]


@pytest.fixture
async def desk(admin: Desk) -> Desk:
    await admin.call(admin.models.CreateModel, model("churn"))
    return admin


async def test_every_case_ends_as_it_must(
    desk: Desk, settings: MetadataSettings, tmp_path: Path
) -> None:
    await asyncio.gather(*(desk.call(desk.models.GetModel, GET) for _ in range(50)))
    sides = Sides(tmp_path / "canaries", (desk.credential,))
    welcome = [case for case in CASES if case[-1] == {OK}]
    refused = [case for case in CASES if case[-1] != {OK}]
    wrong = [problem for case in welcome for problem in await tried(sides, desk, case)]
    before = await asyncio.to_thread(fingerprint, settings.database_url)
    wrong += [problem for case in refused for problem in await tried(sides, desk, case)]
    after = await asyncio.to_thread(fingerprint, settings.database_url)
    wrong += [*changed(before, after), *sides.compare()]
    assert wrong == [], "\n".join(wrong)
    # What is larger than any message is refused before it is anybody's call.
    writes = [path for _, path, _, allowed in refused if is_write(path) and allowed == {INVALID}]

    async def are_recorded() -> bool:
        return await refusals(desk) >= len(writes)

    await eventually(are_recorded)


async def tried(sides: Sides, desk: Desk, one: Case) -> list[str]:
    """Return what is wrong with how a case ended."""
    case, path, request, allowed = one
    started = time.monotonic()
    code, told = await called(desk, path, request)
    answer = Answer(code, told=told, seconds=time.monotonic() - started)
    wrong = [f"{case} {path}: {code.name} {told[:200]}"] if code not in allowed else []
    wrong += sides.judge(f"{case} {path}", answer)
    await desk.call(desk.models.GetModel, GET)
    return wrong


def is_write(path: str) -> bool:
    return path.rpartition("/")[2].startswith(("Create", "Update", "Set"))


async def test_tokens_belong_to_their_list(desk: Desk) -> None:
    await desk.call(desk.models.CreateModel, model("other"))
    page = await desk.call(desk.models.ListModels, listed(page_size=1))
    for other in (
        listed(page_token=page.next_page_token[:-2]),
        listed(page_token=page.next_page_token, filter='id = "churn"'),
        listed(page_token=page.next_page_token, order_by="create_time"),
    ):
        code, _ = await desk.refused(desk.models.ListModels, other)
        assert code is INVALID
    request = runs_pb.ListRunsRequest(parent=MODEL, page_token=page.next_page_token)
    assert (await desk.refused(desk.runs.ListRuns, request))[0] is INVALID


async def test_a_search_for_wildcards_is_literal(desk: Desk) -> None:
    await desk.call(desk.models.CreateModel, model("percent", display_name="100% sure_ly \\ so"))
    for text, found in (("%", 1), ("_", 1), ("\\\\", 1), ("0%s", 0), ("surexly", 0)):
        answer = await desk.call(desk.models.ListModels, listed(filter=f'display_name : "{text}"'))
        assert len(answer.models) == found, text


async def test_values_come_back_bit_for_bit(desk: Desk) -> None:
    run = await desk.new_run("values")
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.8e308, 1.7976931348623157e308]
    steps = [-(2**63), -1, 0, 1, 2, 3, 2**63 - 1]
    future = int((time.time() + 10 * 365 * 86_400) * 1e6)
    batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
    batch.metrics.add(key="v", steps=steps, times_us=[future] * len(steps), values=values)
    assert await desk.ingest(batch) == [1]
    request = runs_pb.ListMetricPointsRequest(run=run, key="v")
    stored = (await desk.call(desk.runs.ListMetricPoints, request)).points
    assert list(stored.steps) == steps
    assert [_bits(value) for value in stored.values] == [_bits(value) for value in values]


async def test_lists_within_lists_are_bounded(desk: Desk) -> None:
    run = await desk.new_run("nested")
    for depth, count in ((5, 1), (33, 1), (1, 1_001)):
        batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
        value = batch.params["k"]
        for _ in range(depth):
            for _ in range(count):
                inner = value.list_value.values.add(int_value=1)
            value = inner
        value.int_value = 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await desk.ingest(batch)
        assert caught.value.code() is INVALID, depth


def _bits(value: float) -> str:
    return "nan" if math.isnan(value) else value.hex()


async def called(desk: Desk, path: str, request: Any) -> tuple[grpc.StatusCode, str]:
    """Call an RPC with bytes, a message, or the name in its first field."""
    if isinstance(request, str):
        request = models_pb.GetVersionRequest(name=request)
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    channel: Any = desk._channel
    try:
        answer = await channel.unary_unary(f"/{path}")(raw, metadata=desk.metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code(), f"{error.details()} {error.trailing_metadata()!r}"
    return OK, repr(answer)


async def refusals(desk: Desk) -> int:
    stub: Any = audit_service_pb2_grpc.AuditServiceStub(desk._channel)
    request = audit_pb.ListAuditEntriesRequest(
        filter='outcome != "OK" AND actor = "user:admin"', page_size=1_000
    )
    page = await desk.call(stub.ListAuditEntries, request)
    return sum(entry.count for entry in page.audit_entries)


async def test_rows_that_stay_are_listed_once_whatever_comes_and_goes(desk: Desk) -> None:
    stay = {f"stay-{number:03}" for number in range(60)}
    await asyncio.gather(*(desk.call(desk.models.CreateModel, model(name)) for name in stay))
    done = asyncio.Event()

    async def come_and_go(lane: int) -> None:
        for number in itertools.count():
            if done.is_set():
                return
            name = f"{'az'[number % 2]}-{lane}-{number}"
            await desk.call(desk.models.CreateModel, model(name))
            delete = models_pb.DeleteModelRequest(name=f"{PROJECT}/models/{name}")
            await desk.call(desk.models.DeleteModel, delete)

    lanes = [asyncio.ensure_future(come_and_go(lane)) for lane in range(2)]
    try:
        for order in ("", "create_time desc"):
            seen, page = [], models_pb.ListModelsResponse(next_page_token="")
            while True:
                request = listed(page_size=7, order_by=order, page_token=page.next_page_token)
                page = await desk.call(desk.models.ListModels, request)
                seen += [found.name.rpartition("/")[2] for found in page.models]
                if not page.next_page_token:
                    break
            assert len(seen) == len(set(seen))
            assert stay <= set(seen)
    finally:
        done.set()
        await asyncio.gather(*lanes)
