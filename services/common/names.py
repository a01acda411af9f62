"""Resource names: the only identifiers of the API, parsed strictly.

A name is a pattern such as `projects/{project}/models/{model}`; ids match
`[a-z]([a-z0-9-]{0,61}[a-z0-9])?`, version numbers `[1-9][0-9]{0,18}`, artifacts
are 64 lowercase hex digits. Nothing else is a name, so no name can be a path, a
shell word or SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from services.common.errors import Reason, ServiceError, Violation

ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
NUMBER = r"[1-9][0-9]{0,18}"
MAX_NUMBER = 2**63 - 1
DIGEST = r"[0-9a-f]{64}"
WILDCARD = "-"

_SYNTAX = {"version": NUMBER, "artifact": DIGEST}
_ID = re.compile(ID)


def invalid_name(field: str, problem: str) -> ServiceError:
    """Say that a request field does not hold a resource name of the right form."""
    return ServiceError(
        Reason.INVALID_NAME,
        f"{field} {problem}",
        violations=[Violation(field, problem)],
        field=field,
    )


def check_id(text: str, field: str) -> str:
    """Return an id that a caller chose, or refuse it with INVALID_NAME."""
    if not _ID.fullmatch(text):
        raise invalid_name(field, f"must match {ID.replace('?:', '')}")
    return text


@dataclass(frozen=True, slots=True)
class ResourceName:
    """A parsed resource name; its text is `str(name)`."""

    pattern: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    expression: ClassVar[re.Pattern[str]]
    open_expression: ClassVar[re.Pattern[str]]

    def __init_subclass__(cls, *, pattern: str = "") -> None:
        if pattern:
            cls.pattern = pattern
            cls.parts = tuple(re.findall(r"\{(\w+)\}", pattern))
            cls.expression = re.compile(_expression(pattern, ""))
            cls.open_expression = re.compile(_expression(pattern, f"|{WILDCARD}"))

    @classmethod
    def parse(cls, text: str, field: str = "name", *, wildcard: bool = False) -> Self:
        """Parse a name, or refuse it with INVALID_NAME; `wildcard` allows `-` for ids."""
        match = (cls.open_expression if wildcard else cls.expression).fullmatch(text)
        if match is None:
            raise invalid_name(field, f"must have the form {cls.pattern}")
        values: dict[str, Any] = match.groupdict()
        for key in ("version",):
            if key in values and values[key] != WILDCARD:
                values[key] = int(values[key])
                if values[key] > MAX_NUMBER:
                    raise invalid_name(field, f"must not have a {key} above {MAX_NUMBER}")
        return cls(**values)

    def __str__(self) -> str:
        return self.pattern.format_map({name: getattr(self, name) for name in self.parts})


def _expression(pattern: str, alternative: str) -> str:
    return re.sub(
        r"\{(\w+)\}",
        lambda found: f"(?P<{found[1]}>{_SYNTAX.get(found[1], ID)}{alternative})",
        pattern,
    )


@dataclass(frozen=True, slots=True)
class ProjectName(ResourceName, pattern="projects/{project}"):
    """Name a project."""

    project: str


@dataclass(frozen=True, slots=True)
class ModelName(ResourceName, pattern="projects/{project}/models/{model}"):
    """Name a model."""

    project: str
    model: str

    def version(self, number: int) -> VersionName:
        """Name a version of the model."""
        return VersionName(self.project, self.model, number)

    def alias(self, alias: str) -> AliasName:
        """Name an alias of the model."""
        return AliasName(self.project, self.model, alias)


@dataclass(frozen=True, slots=True)
class VersionName(ResourceName, pattern="projects/{project}/models/{model}/versions/{version}"):
    """Name a version of a model."""

    project: str
    model: str
    version: int

    @property
    def parent(self) -> ModelName:
        """Name the model."""
        return ModelName(self.project, self.model)

    def evaluation(self, number: int) -> EvaluationName:
        """Name an evaluation of the version."""
        return EvaluationName(self.project, self.model, self.version, f"e{number}")


@dataclass(frozen=True, slots=True)
class EvaluationName(
    ResourceName,
    pattern="projects/{project}/models/{model}/versions/{version}/evaluations/{evaluation}",
):
    """Name an evaluation of a version."""

    project: str
    model: str
    version: int
    evaluation: str


@dataclass(frozen=True, slots=True)
class AliasName(ResourceName, pattern="projects/{project}/models/{model}/aliases/{alias}"):
    """Name an alias of a model."""

    project: str
    model: str
    alias: str

    @property
    def parent(self) -> ModelName:
        """Name the model."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True, slots=True)
class RunName(ResourceName, pattern="projects/{project}/models/{model}/runs/{run}"):
    """Name a run of a model."""

    project: str
    model: str
    run: str

    @property
    def parent(self) -> ModelName:
        """Name the model."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True, slots=True)
class DatasetName(ResourceName, pattern="projects/{project}/datasets/{dataset}"):
    """Name a dataset."""

    project: str
    dataset: str


@dataclass(frozen=True, slots=True)
class DatasetVersionName(
    ResourceName, pattern="projects/{project}/datasets/{dataset}/versions/{version}"
):
    """Name a version of a dataset."""

    project: str
    dataset: str
    version: int


@dataclass(frozen=True, slots=True)
class ArtifactName(ResourceName, pattern="projects/{project}/artifacts/{artifact}"):
    """Name an artifact by its digest."""

    project: str
    artifact: str


@dataclass(frozen=True, slots=True)
class BuildName(ResourceName, pattern="projects/{project}/builds/{build}"):
    """Name a build."""

    project: str
    build: str


@dataclass(frozen=True, slots=True)
class SecretName(ResourceName, pattern="projects/{project}/secrets/{secret}"):
    """Name a secret of builds."""

    project: str
    secret: str


@dataclass(frozen=True, slots=True)
class AutomationName(ResourceName, pattern="projects/{project}/automations/{automation}"):
    """Name an automation."""

    project: str
    automation: str


@dataclass(frozen=True, slots=True)
class ExecutionName(
    ResourceName, pattern="projects/{project}/automations/{automation}/executions/{execution}"
):
    """Name an execution of an automation."""

    project: str
    automation: str
    execution: str

    @property
    def parent(self) -> AutomationName:
        """Name the automation."""
        return AutomationName(self.project, self.automation)


@dataclass(frozen=True, slots=True)
class EnvironmentName(ResourceName, pattern="projects/{project}/environments/{environment}"):
    """Name an environment."""

    project: str
    environment: str


@dataclass(frozen=True, slots=True)
class DeploymentName(
    ResourceName, pattern="projects/{project}/environments/{environment}/deployments/{deployment}"
):
    """Name a deployment in an environment."""

    project: str
    environment: str
    deployment: str

    @property
    def parent(self) -> EnvironmentName:
        """Name the environment."""
        return EnvironmentName(self.project, self.environment)


@dataclass(frozen=True, slots=True)
class WebhookName(ResourceName, pattern="projects/{project}/webhooks/{webhook}"):
    """Name a webhook."""

    project: str
    webhook: str


@dataclass(frozen=True, slots=True)
class WebhookDeliveryName(
    ResourceName, pattern="projects/{project}/webhooks/{webhook}/deliveries/{delivery}"
):
    """Name a delivery of a webhook."""

    project: str
    webhook: str
    delivery: str

    @property
    def parent(self) -> WebhookName:
        """Name the webhook."""
        return WebhookName(self.project, self.webhook)


@dataclass(frozen=True, slots=True)
class TokenName(ResourceName, pattern="tokens/{token}"):
    """Name a token."""

    token: str


_PROJECT_OF = re.compile(rf"projects/({ID}|{WILDCARD})(?:/.*)?")


def project_of(text: str, field: str) -> str:
    """Read the project's id from any resource name, or refuse it with INVALID_NAME."""
    match = _PROJECT_OF.fullmatch(text)
    if match is None:
        raise invalid_name(field, "must begin with projects/{project}")
    return match[1]
