"""Whom a credential stands for, and delegations: rights as they are right now.

A delegation never carries more than its principal still holds: each look at one
asks what the principal's tokens and memberships give at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from services.common.auth import Identity, Right, invalid_credential, right_missing
from services.common.errors import invalid_field
from services.common.names import WILDCARD, invalid_name, project_of
from services.common.sql.database import Database, Transaction
from services.metadata.members.domain import rights_of_members
from services.metadata.members.store import memberships
from services.metadata.oidc.verifying import Verifier
from services.metadata.projects import store
from services.metadata.projects.domain import (
    PROJECT_RIGHTS,
    SECRET_PREFIX,
    Credential,
    Delegation,
    IssuedDelegation,
    hash_secret,
    joined,
    project_rights,
)
from services.metadata.projects.signing import Signer
from services.metadata.projects.uses import Uses

RENEWABLE = timedelta(days=30)
RESOURCE_LENGTH = 512


class Access:
    """Introspects credentials; issues and renews delegations. Metadata's own authenticator."""

    def __init__(
        self,
        *,
        database: Database,
        signer: Signer,
        verifier: Verifier,
        uses: Uses,
        clock: Callable[[], datetime],
        lifetime: timedelta,
    ) -> None:
        self._database = database
        self._signer = signer
        self._verifier = verifier
        self._uses = uses
        self._clock = clock
        self._lifetime = lifetime

    async def introspect(self, credential: str) -> Identity:
        """Return whom a credential stands for."""
        return (await self.examine(credential)).identity

    async def examine(self, credential: str) -> Credential:
        """Return whom a credential stands for, and until when.

        Raises:
            ServiceError: INVALID_CREDENTIAL; SERVICE_UNAVAILABLE when an OIDC issuer does
                not answer.
        """
        if credential.startswith(SECRET_PREFIX):
            return await self._examine_token(credential)
        if self._signer.issued(credential):
            return await self._examine_delegation(credential)
        return await self._examine_signed_in(credential)

    async def issue(
        self, caller: Identity, resource: str, rights: Collection[Right]
    ) -> IssuedDelegation:
        """Let a resource's work act for the caller.

        Raises:
            ServiceError: RIGHT_MISSING, INVALID_NAME, INVALID_FIELD.
        """
        project = project_of(resource, "resource")
        if project == WILDCARD or len(resource) > RESOURCE_LENGTH or not resource.isprintable():
            raise invalid_name("resource", "must name a resource of one project")
        if not rights or not set(rights) <= PROJECT_RIGHTS:
            raise invalid_field("rights", "must be one or more rights on a project")
        for right in rights:
            caller.require(right, project)
        return self.mint(caller.principal, resource, rights)

    def mint(
        self, principal: str, resource: str, rights: Collection[Right], *, voucher: str = ""
    ) -> IssuedDelegation:
        """Sign a delegation; what it is worth is decided each time it is used."""
        project = project_of(resource, "resource")
        expire_time = (self._clock() + self._lifetime).replace(microsecond=0)
        delegation = Delegation(
            principal, project, resource, frozenset(rights), expire_time, voucher
        )
        return IssuedDelegation(self._signer.sign(delegation), expire_time)

    async def renew(
        self, credential: str, rights: Collection[Right], *, voucher: str
    ) -> IssuedDelegation:
        """Issue a delegation anew, with all its rights or with some of them.

        The service that renews it vouches that the work is what its resource says.

        Raises:
            ServiceError: INVALID_CREDENTIAL, or RIGHT_MISSING when the principal lost a right.
        """
        old = await self._read(credential)
        if old.expire_time + RENEWABLE <= self._clock():
            raise invalid_credential()
        wanted = frozenset(rights) or old.rights
        held = await self._held(old.principal, old.project) or frozenset()
        for right in sorted(wanted):
            if right not in held or right not in old.rights:
                raise right_missing(right)
        return self.mint(old.principal, old.resource, wanted, voucher=voucher)

    async def _examine_token(self, secret: str) -> Credential:
        secret_hash = hash_secret(secret)
        token = await self._database.lookup(lambda tx: store.find_token(tx.connection, secret_hash))
        if token is None or not token.is_valid(self._clock()):
            raise invalid_credential()
        self._uses.note(token.token)
        # A token with grants is good for those only, whatever else its principal may do.
        rights = project_rights([token]) if token.grants else await self._own(token.principal)
        identity = Identity(
            principal=token.principal,
            credential=secret,
            project_rights=rights,
            installation_rights=frozenset(token.installation_rights),
        )
        return Credential(identity, token.expire_time)

    async def _examine_signed_in(self, credential: str) -> Credential:
        found = await self._verifier.verify(credential)
        identity = Identity(
            principal=found.principal,
            credential=credential,
            project_rights=await self._own(found.principal),
            installation_rights=frozenset({Right.OPERATE} if found.is_operator else ()),
        )
        return Credential(identity, found.expire_time)

    async def _own(self, principal: str) -> Mapping[str, frozenset[Right]]:
        """Return the rights of a principal as a member."""
        members = await self._database.lookup(lambda tx: memberships(tx.connection, principal))
        return rights_of_members(members)

    async def _examine_delegation(self, credential: str) -> Credential:
        delegation = await self._read(credential)
        held = await self._held(delegation.principal, delegation.project)
        if held is None or delegation.expire_time <= self._clock():
            raise invalid_credential()
        identity = Identity(
            principal=delegation.principal,
            credential=credential,
            project_rights={delegation.project: delegation.rights & held},
            delegated_resource=delegation.resource,
            voucher=delegation.voucher,
        )
        return Credential(identity, delegation.expire_time)

    async def _read(self, credential: str) -> Delegation:
        return await asyncio.to_thread(self._signer.read, credential)

    async def _held(self, principal: str, project: str) -> frozenset[Right] | None:
        """Return the rights a principal holds now; None when nothing stands for him any more."""
        now = self._clock()

        def read(tx: Transaction) -> frozenset[Right] | None:
            tokens = store.tokens_of(tx.connection, principal)
            valid = [token for token in tokens if token.is_valid(now)]
            member = rights_of_members(memberships(tx.connection, principal))
            if not valid and not member:
                return None
            rights, nothing = joined(project_rights(valid), member), frozenset[Right]()
            return rights.get(project, nothing) | rights.get(WILDCARD, nothing)

        return await self._database.read(read)
