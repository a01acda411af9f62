"""Sweeps: a grid of builds under a cap, from the command line; the best of them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from modelyard._values import decode_value
from modelyard.builder.v1 import build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.yard import Yard, until

MODELYARD = str(Path(sys.executable).with_name("modelyard"))
SWEEP = ("--sweep", "n=50,100", "--sweep", "kernel=rbf,poly", "--group", "nightly")


async def modelyard(stack: Stack, *arguments: str) -> asyncio.subprocess.Process:
    variables = {"MODELYARD_SERVER": stack.address, "MODELYARD_TOKEN": stack.token("admin")}
    return await asyncio.create_subprocess_exec(
        MODELYARD,
        *arguments,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_a_sweep_keeps_its_cap_and_names_the_best(stack: Stack) -> None:
    async with Yard.open(stack) as yard:
        await yard.client.models.create("churn", metric_goals={"f1": "maximize"})
        folder = str(stack.data / "source")
        build = ("build", folder, "--model", "churn", *SWEEP)
        command = await modelyard(stack, *build, "--max-parallel", "2")

        async def orders() -> list[build_pb2.Build]:
            return [b async for b in yard.client.builds.list(filter='group = "nightly"')]

        for done in range(4):
            taken = await yard.take(wait=20)
            await until(lambda: _there(orders, min(done + 2, 4)))  # noqa: B023 - awaited at once
            params: dict[str, Any] = {
                key: decode_value(value) for key, value in taken.build.spec.params.items()
            }
            await yard.pass_phases(taken.lease)
            score = params["n"] / 100 - (0.1 if params["kernel"] == "poly" else 0)
            async with yard.client.runs.writer(taken.build.run) as writer:
                await writer.log({"f1": score}, step=0)
            await yard.register(taken.lease)
            assert len(await orders()) <= done + 3
        printed = (await asyncio.wait_for(command.communicate(), 60))[0].decode()
        assert command.returncode == 0, printed
        assert "best by f1: churn/3, 1" in printed
        runs = [r async for r in yard.client.runs.search(model="churn", filter='group = "nightly"')]
        assert len(runs) == 4

        # Asked for again, it is done already.
        again = await modelyard(stack, *build, "-o", "json")
        printed = (await asyncio.wait_for(again.communicate(), 60))[0].decode()
        assert again.returncode == 0, printed
        assert len(await orders()) == 4


async def _there(orders: Any, count: int) -> bool:
    return len(await orders()) == count
