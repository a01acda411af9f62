"""Retention: what no rule keeps goes, what anyone needs stays, and a dry run only says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from modelyard import AsyncClient
from modelyard.errors import NotFoundError
from modelyard.metadata.v1 import lineage_service_pb2 as lineage_pb
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import retention_pb2, version_use_pb2
from modelyard.metadata.v1 import retention_service_pb2 as retention_service
from modelyard.metadata.v1 import retention_service_pb2_grpc as retention_grpc

from services.metadata.settings import MetadataSettings
from tests.contract.builder.yard import until
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, artifacts_running, metadata_running

USER = f"{PROJECT}/environments/production/deployments/churn"
KEEP, DELETE, PURGE = (
    retention_pb2.RETENTION_ACTION_KEEP,
    retention_pb2.RETENTION_ACTION_DELETE,
    retention_pb2.RETENTION_ACTION_PURGE,
)


def client_of(desk: Desk) -> AsyncClient:
    return AsyncClient(f"127.0.0.1:{desk.house.port}", token=desk.credential, project="default")


async def versions(client: AsyncClient) -> list[int]:
    return [int(v.name.rpartition("/")[2]) async for v in client.versions.list(model="churn")]


async def test_what_nothing_keeps_goes(admin: Desk, artifact: str) -> None:
    for _ in range(6):
        await admin.new_version(artifact)
    use = version_use_pb2.VersionUse(version=f"{MODEL}/versions/2", user=USER)
    await admin.call(
        admin.lineage.StartVersionUse, lineage_pb.StartVersionUseRequest(version_use=use)
    )
    async with client_of(admin) as client:
        await client.aliases.set("churn", "production", version=1)
        await client.versions.archive("churn/5")
        made = await client.retention.set("churn", keep_last=2, purge_after=timedelta())
        assert (made.keep_last_count, made.setter) == (2, "user:admin")
        planned = list(await client.retention.apply("churn", dry_run=True))
        assert [v.action for v in planned] == [KEEP, DELETE, KEEP, DELETE, KEEP, KEEP]
        assert list(planned[4].reasons) == [USER]
        assert list(planned[5].reasons) == [f"{MODEL}/aliases/production"]
        assert await versions(client) == [6, 5, 4, 3, 2, 1]
        assert list(await client.retention.apply("churn")) == planned
        assert await versions(client) == [6, 4, 2, 1]
        purged = await client.retention.apply("churn")
        assert [v.action for v in purged] == [KEEP, PURGE, KEEP, PURGE, KEEP, KEEP]
        gone = pb.GetVersionRequest(name=f"{MODEL}/versions/3")
        assert (await admin.refused(admin.models.GetVersion, gone))[0] is grpc.StatusCode.NOT_FOUND
        await client.retention.remove("churn")
        with pytest.raises(NotFoundError):
            await client.retention.get("churn")


async def test_the_young_stay_and_the_deleted_can_be_restored(admin: Desk, artifact: str) -> None:
    for _ in range(3):
        await admin.new_version(artifact)
    async with client_of(admin) as client:
        month = timedelta(days=30)
        await client.retention.set("churn", keep_last=1, keep_for=month, purge_after=month)
        kept = list(await client.retention.apply("churn"))
        assert {v.action for v in kept} == {KEEP}
        assert list(kept[1].reasons) == ["younger than 30 days"]
        await client.retention.set("churn", keep_last=1, purge_after=month)
        assert [v.action for v in await client.retention.apply("churn")] == [KEEP, DELETE, DELETE]
        assert {v.action for v in await client.retention.apply("churn")} == {KEEP}
        await client.versions.restore("churn/2")
        assert await versions(client) == [3, 2]


async def test_rules_are_checked(admin: Desk) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{admin.house.port}")
    stub = retention_grpc.RetentionServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]

    async def refused(**values: object) -> tuple[grpc.StatusCode, str]:
        retention = retention_pb2.Retention(**values)  # type: ignore[arg-type]
        return await admin.refused(
            stub.SetRetention, retention_service.SetRetentionRequest(retention=retention)
        )

    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert await refused(model=MODEL) == invalid
    assert await refused(model=MODEL, keep_last_count=-1) == invalid
    negative = retention_pb2.Retention(model=MODEL, keep_last_count=1)
    negative.keep_duration.seconds = -1
    assert (
        await admin.refused(
            stub.SetRetention, retention_service.SetRetentionRequest(retention=negative)
        )
        == invalid
    )
    assert (await refused(model=MODEL, keep_last_count=1))[0] is grpc.StatusCode.NOT_FOUND
    async with client_of(admin) as client:
        await client.models.create("churn")
        made = await client.retention.set("churn", keep_last=3)
        stale = await refused(model=MODEL, keep_last_count=1, etag="77")
        assert stale == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        assert (await client.retention.set("churn", keep_last=1, etag=made.etag)).etag != made.etag
    await channel.close()


async def test_rules_are_followed_in_the_background(
    settings: MetadataSettings, artifact_port: int, tmp_path: Path
) -> None:
    quick = replace(settings, retention_seconds=0.2)
    async with (
        metadata_running(quick, artifact_port) as house,
        artifacts_running(house, tmp_path / "artifact"),
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        desk = Desk(channel, house, house.secret("admin"))
        artifact = await desk.push()
        async with client_of(desk) as client:
            for _ in range(3):
                await desk.new_version(artifact)
            await client.retention.set("churn", keep_last=1, purge_after=timedelta())

            async def only_the_newest() -> bool:
                verdicts = await client.retention.apply("churn", dry_run=True)
                return [v.version for v in verdicts] == [f"{MODEL}/versions/3"]

            await until(only_the_newest)
