"""Each server fixture once: connect, write, read; and that nothing outlives its tests."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.servers.otlp import OtlpSink
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Bucket
from tests.servers.valkey import ValkeyServer

ROOT = Path(__file__).resolve().parents[3]


def test_postgres(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.execute("INSERT INTO t VALUES ('ä')")
        assert connection.execute("SELECT x FROM t").fetchone() == ("ä",)


def test_each_postgres_database_is_fresh(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as one, postgres_server.database() as two:
        with psycopg.connect(one) as connection:
            connection.execute("CREATE TABLE t (x TEXT)")
        with psycopg.connect(two) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_valkey(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.xadd("s", {"x": "1"})
        assert client.xlen("s") == 1
    valkey.stop()
    valkey.start()
    with valkey.client() as client:
        assert client.xlen("s") == 0


def test_s3(s3_bucket: S3Bucket) -> None:
    client = s3_bucket.client()
    client.put_object(s3_bucket.bucket, "a/b", io.BytesIO(b"bytes"), 5)
    assert client.get_object(s3_bucket.bucket, "a/b").read() == b"bytes"
    unsigned = httpx.get(f"http://{s3_bucket.endpoint}/{s3_bucket.bucket}/a/b")
    assert unsigned.status_code == 403


def test_otlp_sink(otlp_sink: OtlpSink) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "probe"}))
    exporter = OTLPSpanExporter(endpoint=otlp_sink.endpoint, insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("work"):
        pass
    provider.shutdown()
    [span] = otlp_sink.wait_for(lambda spans: len(spans) == 1)
    assert (span.service, span.name, span.parent_id) == ("probe", "work", "")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_its_tests(tmp_path: Path, ending: signal.Signals) -> None:
    program = tmp_path / "hold.py"
    program.write_text(
        "import pathlib, signal, sys, time\n"
        # A shell starts what runs in its background with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.servers import postgres\n"
        "with postgres.running(pathlib.Path(sys.argv[1])):\n"
        "    pathlib.Path(sys.argv[1], 'up').touch()\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, program, tmp_path], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "up").exists():
        assert holder.poll() is None
        time.sleep(0.05)
    servers = psutil.Process(holder.pid).children(recursive=True)
    assert any(process.name() == "postgres" for process in servers)
    holder.send_signal(ending)
    holder.wait()
    _, alive = psutil.wait_procs(servers, timeout=20)
    assert alive == []
