"""Short forms of resource names, resolved in the default project.

A model is `churn`, a version `churn/7`, an alias `churn@production`; whatever
has a full name may be given by it, or as the resource itself.
"""

from __future__ import annotations

import re
from typing import Protocol

from modelyard.errors import InvalidArgumentError

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SEGMENT = re.compile(r"[^/]+")
_WILDCARD = "-"


class Named(Protocol):
    """A resource: anything that has a resource name."""

    @property
    def name(self) -> str:
        """Return the full name."""


Ref = str | Named
"""A resource: its full name, its short form, or itself."""


class Names:
    """Turn references into full names, in one default project."""

    def __init__(self, project: str) -> None:
        self.default = _full(project, "projects", short=_ID)

    def project(self, ref: Ref | None = None) -> str:
        """Return a project's name; the default one's without a reference."""
        return self.default if ref is None else _full(text_of(ref), "projects", short=_ID)

    def model(self, ref: Ref | None = None) -> str:
        """Return a model's name; without a reference, that of all models."""
        text = _WILDCARD if ref is None else text_of(ref)
        return self._in_project(text, "models", short=_ID)

    def version(self, ref: Ref | int, *, model: Ref | None = None) -> str:
        """Return a version's name; a bare number belongs to `model`."""
        text = str(ref) if isinstance(ref, int) else text_of(ref)
        if model is not None and _NUMBER.fullmatch(text):
            return f"{self.model(model)}/versions/{text}"
        if _is_full(text, "models", "versions"):
            return text
        owner, slash, number = text.partition("/")
        if slash and _ID.fullmatch(owner) and _NUMBER.fullmatch(number):
            return f"{self.default}/models/{owner}/versions/{number}"
        raise _bad(text, "a version, such as `churn/7`")

    def target(self, ref: Ref) -> str:
        """Return the name of a version, an alias or a model: whatever names a version."""
        text = text_of(ref)
        if _is_full(text, "models", "aliases") or "@" in text:
            return self.alias(text)
        if _is_full(text, "models") or _ID.fullmatch(text):
            return self.model(text)
        return self.version(text)

    def labelled(self, ref: Ref) -> tuple[str, str]:
        """Return the model and the label of `churn@1.4.0`; no label when it is no such form."""
        model, _, label = text_of(ref).partition("@")
        is_label = bool(label) and not _ID.fullmatch(label) and bool(_ID.fullmatch(model))
        return (model, label) if is_label else (model, "")

    def alias(self, ref: Ref, alias: str | None = None) -> str:
        """Return an alias's name: `churn@production`, or model and alias apart."""
        text = text_of(ref)
        if alias is not None:
            _check(alias, _ID, "an alias, such as `production`", wildcard=True)
            return f"{self.model(text)}/aliases/{alias}"
        if _is_full(text, "models", "aliases"):
            return text
        owner, _, name = text.partition("@")
        if _ID.fullmatch(owner) and _ID.fullmatch(name):
            return f"{self.default}/models/{owner}/aliases/{name}"
        raise _bad(text, "an alias, such as `churn@production`")

    def run(self, ref: Ref) -> str:
        """Return a run's name: `churn/RUN` in short."""
        text = text_of(ref)
        if _is_full(text, "models", "runs"):
            return text
        owner, slash, run = text.partition("/")
        if slash and _ID.fullmatch(owner) and _SEGMENT.fullmatch(run):
            return f"{self.default}/models/{owner}/runs/{run}"
        raise _bad(text, "a run, such as `churn/RUN`")

    def dataset(self, ref: Ref) -> str:
        """Return a dataset's name."""
        return self._in_project(text_of(ref), "datasets", short=_ID)

    def dataset_version(self, ref: Ref) -> str:
        """Return a dataset version's name: `prices/3` in short."""
        text = text_of(ref)
        if _is_full(text, "datasets", "versions"):
            return text
        owner, slash, number = text.partition("/")
        if slash and _ID.fullmatch(owner) and _NUMBER.fullmatch(number):
            return f"{self.default}/datasets/{owner}/versions/{number}"
        raise _bad(text, "a dataset version, such as `prices/3`")

    def artifact(self, ref: Ref) -> str:
        """Return an artifact's name: its 64 hex digits in short."""
        return self._in_project(text_of(ref), "artifacts", short=_DIGEST)

    def build(self, ref: Ref) -> str:
        """Return a build's name: its id in short."""
        return self._in_project(text_of(ref), "builds", short=_SEGMENT)

    def automation(self, ref: Ref) -> str:
        """Return an automation's name: its id in short."""
        return self._in_project(text_of(ref), "automations", short=_ID)

    def execution(self, ref: Ref) -> str:
        """Return the name of an automation's execution: `daily/e-1f…` in short."""
        text = text_of(ref)
        if _is_full(text, "automations", "executions"):
            return text
        automation, slash, execution = text.partition("/")
        if slash and _ID.fullmatch(automation) and _SEGMENT.fullmatch(execution):
            return f"{self.default}/automations/{automation}/executions/{execution}"
        raise _bad(text, "an execution, such as `daily/e-1f…`")

    def environment(self, ref: Ref | None = None) -> str:
        """Return an environment's name; without a reference, that of all of them."""
        text = _WILDCARD if ref is None else text_of(ref)
        return self._in_project(text, "environments", short=_ID)

    def deployment(self, ref: Ref, environment: Ref | None = None) -> str:
        """Return a deployment's name: that of a model in an environment."""
        text = text_of(ref)
        if _is_full(text, "environments", "deployments"):
            return text
        if environment is None:
            raise _bad(text, "a deployment; a model's needs its `environment`")
        model = self.model(text).rpartition("/")[2]
        return f"{self.environment(environment)}/deployments/{model}"

    def webhook(self, ref: Ref) -> str:
        """Return a webhook's name: its id in short."""
        text = text_of(ref)
        if _is_full(text, "webhooks"):
            return text
        _check(text, _ID, "a webhook", wildcard=False)
        return f"{self.default}/webhooks/{text}"

    def secret(self, ref: Ref) -> str:
        """Return a secret's name: its id in short."""
        text = text_of(ref)
        if _is_full(text, "secrets"):
            return text
        _check(text, _ID, "a secret's id, such as `warehouse-password`", wildcard=False)
        return f"{self.default}/secrets/{text}"

    def webhook_delivery(self, ref: Ref) -> str:
        """Return the name of a webhook's delivery: `audit/d12…` in short."""
        text = text_of(ref)
        if _is_full(text, "webhooks", "deliveries"):
            return text
        webhook, slash, delivery = text.partition("/")
        if slash and _ID.fullmatch(webhook) and _SEGMENT.fullmatch(delivery):
            return f"{self.default}/webhooks/{webhook}/deliveries/{delivery}"
        raise _bad(text, "a webhook's delivery, such as `audit/d12…`")

    def token(self, ref: Ref) -> str:
        """Return a token's name: its id in short."""
        return _full(text_of(ref), "tokens", short=_SEGMENT)

    def _in_project(self, text: str, collection: str, *, short: re.Pattern[str]) -> str:
        if _is_full(text, collection):
            return text
        _check(text, short, f"a name in {collection}", wildcard=True)
        return f"{self.default}/{collection}/{text}"


def text_of(ref: Ref) -> str:
    """Return what was written, or the resource's name."""
    return ref if isinstance(ref, str) else ref.name


def id_of(name: str) -> str:
    """Return the last part of a resource name."""
    return name.rpartition("/")[2]


def project_of(name: str) -> str:
    """Return the project part of a resource name."""
    return "/".join(name.split("/")[:2])


def _full(text: str, collection: str, *, short: re.Pattern[str]) -> str:
    prefix, slash, ident = text.partition("/")
    if slash and prefix == collection and _SEGMENT.fullmatch(ident):
        return text
    _check(text, short, f"a name in {collection}", wildcard=False)
    return f"{collection}/{text}"


def is_artifact(ref: Ref) -> bool:
    """Say whether a reference is to an artifact rather than to a version."""
    text = text_of(ref)
    return bool(_DIGEST.fullmatch(text)) or _is_full(text, "artifacts")


def _is_full(text: str, *collections: str) -> bool:
    parts = text.split("/")
    return all(parts) and parts[::2] == ["projects", *collections] and len(parts) % 2 == 0


def _check(text: str, pattern: re.Pattern[str], wanted: str, *, wildcard: bool) -> None:
    if not (pattern.fullmatch(text) or (wildcard and text == _WILDCARD)):
        raise _bad(text, wanted)


def _bad(text: str, wanted: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{text!r} is not {wanted}", reason="INVALID_NAME")
