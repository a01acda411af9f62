"""Telemetry as a process has it: each case is a process of its own, the set-up is global."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.servers.otlp import OtlpSink

ROOT = Path(__file__).resolve().parents[3]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
DROPPED = f"00-{TRACE}-{PARENT}-00"

PROGRAM = """
import sys
from services.common import telemetry
endpoint, ratio, parent = sys.argv[1:]
found = telemetry.configure("probe", otlp_endpoint=endpoint or None, sample_ratio=float(ratio))
call = found.start_call("/p.S/M", {"traceparent": parent} if parent else {})
with telemetry.span("inner"):
    print(dict(telemetry.inject([("a", "b")])).get("traceparent", ""))
later = telemetry.trace_parent()
found.end_call(call, "NOT_FOUND")
with telemetry.span("afterwards", trace_parent=later):
    pass
found.close()
print(any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


def _run(*arguments: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_spans_join_the_callers_trace(otlp_sink: OtlpSink) -> None:
    injected, _ = _run(otlp_sink.endpoint, "0", SAMPLED)
    spans = otlp_sink.wait_for(lambda spans: len(spans) == 3)
    by_name = {span.name: span for span in spans}
    call, inner, after = by_name["/p.S/M"], by_name["inner"], by_name["afterwards"]
    assert {(span.service, span.trace_id) for span in spans} == {("probe", TRACE)}
    assert (call.parent_id, inner.parent_id, after.parent_id) == (
        PARENT,
        call.span_id,
        call.span_id,
    )
    assert injected == f"00-{TRACE}-{inner.span_id}-01"


def test_the_ratio_decides_when_the_caller_did_not(otlp_sink: OtlpSink) -> None:
    _run(otlp_sink.endpoint, "0", "")
    _run(otlp_sink.endpoint, "1", DROPPED)
    assert otlp_sink.spans == []
    _run(otlp_sink.endpoint, "1", "")
    assert len(otlp_sink.wait_for(lambda spans: len(spans) == 3)) == 3


def test_without_a_collector_the_sdk_is_not_even_imported() -> None:
    injected, imported = _run("", "1", SAMPLED)
    assert imported == "False"
    # The caller's trace goes on to whoever is called next.
    assert injected == SAMPLED


def test_metrics_are_served_on_loopback() -> None:
    program = (
        "from services.common.telemetry import configure\n"
        "from services.suite.start import free_port\n"
        "import sys\n"
        "port = free_port()\n"
        "found = configure('probe', otlp_endpoint=None, sample_ratio=1)\n"
        "found.serve_metrics(port)\n"
        "found.end_call(found.start_call('/p.S/M', {}), 'OK')\n"
        "print(port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        assert process.stdin is not None
        process.stdin.close()
    counted = 'modelyard_rpc_duration_seconds_count{code="OK",method="/p.S/M"} 1.0'
    assert counted in text
    assert "modelyard_rpc_in_flight 0.0" in text
