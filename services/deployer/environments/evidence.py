"""Gathering what an environment's gates look at, from metadata, artifact and our own ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.common.names import EnvironmentName, VersionName
from services.common.sql.database import Database
from services.deployer.artifacts import Artifacts
from services.deployer.domain import (
    Approval,
    Candidate,
    Environment,
    Evaluation,
    Evidence,
    FormatReport,
    Gate,
    GateKind,
    Goal,
)
from services.deployer.environments import signatures
from services.deployer.metadata import Metadata
from services.deployer.store.approvals import list_approvals

_EVALUATED = frozenset({GateKind.EVALUATION_PRESENT})


class Witness:
    """Gathers evidence with the rights of whoever asks."""

    def __init__(self, database: Database, metadata: Metadata, artifacts: Artifacts) -> None:
        self._database = database
        self._metadata = metadata
        self._artifacts = artifacts

    async def gather(
        self,
        environment: Environment,
        candidate: Candidate,
        live: str,
        *,
        credential: str,
    ) -> Evidence:
        """Gather what the gates of an environment ask for, and nothing else.

        Args:
            environment: with its gates.
            candidate: the version to be judged.
            live: the name of the version that answers now; empty: none.
            credential: of whoever asks.
        """
        gates = environment.gates
        known = await self._metadata.version(live, credential=credential) if live else None
        evaluated = any(gate.dataset or gate.kind in _EVALUATED for gate in gates)
        wanted = evaluated and known is not None
        return Evidence(
            candidate=candidate,
            live=known,
            goals=await self._goals(candidate, credential),
            evaluations=await self._evaluations(candidate.name if evaluated else "", credential),
            live_evaluations=await self._evaluations(live if wanted else "", credential),
            approvals=await self._approvals(environment.name, candidate, gates),
            format=await self._format(candidate, gates, credential),
            unsigned=await self._unsigned(candidate, gates, credential),
        )

    async def _goals(self, candidate: Candidate, credential: str) -> dict[str, Goal]:
        model = str(VersionName.parse(candidate.name).parent)
        return await self._metadata.goals(model, credential=credential)

    async def _evaluations(self, version: str, credential: str) -> tuple[Evaluation, ...]:
        if not version:
            return ()
        return await self._metadata.evaluations(version, credential=credential)

    async def _approvals(
        self, name: EnvironmentName, candidate: Candidate, gates: Iterable[Gate]
    ) -> tuple[Approval, ...]:
        if not _asked(gates, GateKind.APPROVED):
            return ()
        return await self._database.read(
            lambda tx: tuple(list_approvals(tx.connection, name, candidate.name))
        )

    async def _format(
        self, candidate: Candidate, gates: Iterable[Gate], credential: str
    ) -> FormatReport | None:
        if not _asked(gates, GateKind.FORMAT_ALLOWED):
            return None
        return await self._artifacts.formats(candidate.artifact, credential=credential)

    async def _unsigned(
        self, candidate: Candidate, gates: Iterable[Gate], credential: str
    ) -> dict[str, str]:
        wanted = [gate for gate in gates if gate.kind is GateKind.SIGNATURE_VALID]
        if not wanted:
            return {}
        bundles = await self._metadata.signatures(candidate.name, credential=credential)
        files = await self._artifacts.files(candidate.artifact, credential=credential)
        problems = {
            gate.gate_id: await asyncio.to_thread(
                signatures.problem, files, bundles, gate.public_keys
            )
            for gate in wanted
        }
        return {gate_id: problem for gate_id, problem in problems.items() if problem}


def _asked(gates: Iterable[Gate], kind: GateKind) -> bool:
    return any(gate.kind is kind for gate in gates)
