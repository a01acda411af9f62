"""Why an execution ended so, in a sentence for a person, with the figures."""

from __future__ import annotations

from services.builder.automations.domain import Execution
from services.builder.automations.downstream import Rollout
from services.builder.domain import Build
from services.common.names import VersionName


def build_failed(build: Build) -> str:
    """Say why a build failed."""
    failure = build.failure
    why = f"{failure.reason}: {failure.message}" if failure else "no reason is known"
    return f"build {build.name.build} failed: {why}"


def built(execution: Execution) -> str:
    """Say that a version was built and nothing else was wished."""
    return f"{_version(execution)} was built; the automation deploys nothing"


def refused(execution: Execution) -> str:
    """Say which conditions did not hold."""
    failed = [f"{v.gate_id}: {v.explanation}" for v in execution.verdicts if not v.passed]
    return f"{_version(execution)} was not deployed to {_where(execution)}: {'; '.join(failed)}"


def live(execution: Execution) -> str:
    """Say that a version went live, and what spoke for it."""
    passed = "; ".join(verdict.explanation for verdict in execution.verdicts)
    why = f": {passed}" if passed else ""
    revision = f"revision {execution.revision}"
    return f"{_version(execution)} is live in {_where(execution)} ({revision}){why}"


def not_live(execution: Execution, rollout: Rollout) -> str:
    """Say why a version that was to go live did not."""
    version, where = _version(execution), _where(execution)
    if rollout.outcome == "SUPERSEDED":
        return f"{version} did not go live in {where}: somebody deployed another meanwhile"
    return f"{version} did not go live in {where}: {rollout.failure}"


def reason(execution: Execution) -> str:
    """Say in a deployment's history who deployed and why."""
    automation = execution.name.automation
    return f"automation {automation}: {execution.occurrence.explanation}"[:1_000]


def _version(execution: Execution) -> str:
    name = VersionName.parse(execution.version)
    return f"{name.model}/{name.version}"


def _where(execution: Execution) -> str:
    deploy = execution.action.deploy
    return deploy.environment.rpartition("/")[2] if deploy else ""
