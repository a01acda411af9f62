"""The metadata service's settings, read from `MODELYARD_METADATA_*`."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "MODELYARD_METADATA_"


@dataclass(frozen=True, slots=True)
class MetadataSettings:
    """Where the metadata service keeps what it owns, and how long things last."""

    database_url: str = "sqlite:///modelyard-data/metadata.db"
    """Such as `sqlite:////data/metadata.db` or `postgresql://user@host/metadata`."""
    tokens_dir: str = "modelyard-data/tokens"
    """A folder of `<name>.token` files for admin, builder, deployer, worker and agent: each is
    registered at start, missing ones are made."""
    oidc_file: str = ""
    """A TOML file of the OIDC issuers through which people and CI jobs sign in; see
    docs/security.md."""
    use_seconds: float = 30.0
    """How often is noted when tokens were last used."""
    delegation_seconds: float = 600.0
    """How long a delegation is valid."""
    heartbeat_seconds: float = 300.0
    """How long a run may be silent before it counts as FAILED."""
    sweep_seconds: float = 5.0
    """How often silent runs and PENDING versions are looked for."""
    pending_seconds: float = 10.0
    """How old a PENDING version must be before it is finished in the background."""
    query_seconds: float = 5.0
    """How long a search of runs or versions may take."""
    ledger_days: float = 30.0
    """For how many days a project's changes can be watched again."""
    ledger_changes: int = 10_000
    """How many of a project's newest changes are kept, whatever their age."""
    ledger_trim_seconds: float = 3600.0
    """How often older changes are forgotten."""
    retention_seconds: float = 3600.0
    """How often models' rules of retention are followed."""
    webhook_networks: str = ""
    """Networks that webhooks may reach beside public addresses, there without TLS too, such as
    `10.1.0.0/16,fd00::/8`."""
    webhook_key_file: str = ""
    """Fernet keys, one a line, that webhooks' secrets are encrypted with: the first encrypts, all
    decrypt. Empty: a key that is kept in the database."""
    webhook_root_certificates: str = ""
    """A PEM file of authorities to trust beside the system's."""
    webhook_timeout_seconds: float = 10.0
    """How long one attempt to deliver may take."""
    webhook_retry_seconds: float = 10.0
    """How long after the first failure it is tried again; then five times as long, each time."""
    webhook_attempts: int = 10
    """How often a delivery is tried."""
    webhook_days: float = 30.0
    """For how many days deliveries are kept."""
    webhook_poll_seconds: float = 5.0
    """How often is looked for changes and deliveries without being woken."""
