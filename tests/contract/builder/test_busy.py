"""Builds of a suite that has too much to do wherever a worker asks it: they only take longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard import GitSource
from modelyard.builder.v1 import build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.test_spec import dataset
from tests.contract.builder.test_worker import MODEL, TESTS, ended
from tests.git_server import serving
from tests.servers.busy import serving_busy

ONCE_MORE = 6
"""So often a call is refused that gRPC itself makes up to five times."""
REPEATED = (
    *("ListFiles", "GetDatasetVersion", "FindMissing", "CommitFiles", "CreateArtifact"),
    *("GetIngestPosition", "CreateDatasetVersion"),
)
ALWAYS = {
    *("LeaseBuild", "ReportEvents", "GetBuildSecrets", "RegisterBuild"),
    *("ReadFiles", "WriteChunks", "IngestRunData", *REPEATED),
}
"""What each build asks for, whatever its source."""
TIMES = {**dict.fromkeys(REPEATED, ONCE_MORE), "ExtendLease": 0}
"""Leases are short here: what keeps them is let through."""


@pytest.mark.slow
async def test_a_build_survives_refusals_in_every_phase(
    stack: Stack, environments: Path, tmp_path: Path
) -> None:
    (stack.data / "rows.csv").write_text("1\n")
    with serving(tmp_path / "repository") as repository:
        repository.commit({"model.py": MODEL, "test_churn.py": TESTS})
        async with (
            stack.client() as client,
            serving_busy(stack.address, first=2, of=TIMES, anew="ReportPhase") as (address, front),
            stack.worker(environments=environments, git_http="1", MODELYARD_SUITE_ADDRESS=address),
        ):
            await client.secrets.set("token", "s3cret")
            await dataset(client, stack.data)
            order = await client.builds.create(
                GitSource(repository.url, "main"),
                model="churn",
                data={"train": "prices/1"},
                secrets={"TOKEN": "token"},
            )
            built = await ended(client, order.name)
            assert (built.state, built.attempt) == (build_pb2.BUILD_STATE_SUCCEEDED, 1), built
            assert front.refused.keys() >= {*ALWAYS, "ReportPhase", "ReportSource"}
            front.refused.clear()
            again = await client.builds.reproduce("churn/1")
            found = await client.builds.reproduction(again)
            assert front.refused.keys() >= {*ALWAYS, "ReadFile", "ReadRecipe"}
            assert found.build.attempt == 1
            assert found.is_identical, found
