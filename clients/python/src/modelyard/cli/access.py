"""`modelyard members` and `modelyard tokens`: who may do what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.options import pair
from modelyard.cli.render import leaf, moment, show_list, show_one

if TYPE_CHECKING:
    from modelyard.metadata.v1.member_pb2 import Member

Everywhere = Annotated[bool, typer.Option("--all-projects", help="In all projects.")]


def register_members(group: typer.Typer) -> None:
    """Add `members` to the command line."""

    @group.command("list")
    def list_members(everywhere: Everywhere = False) -> None:
        """List the project's members."""
        show_list(
            client().members.list(project="-" if everywhere else None),
            {
                "PRINCIPAL": lambda m: m.principal,
                "ROLE": _role,
                "SET": lambda m: moment(m.update_time),
                "BY": lambda m: m.setter,
            },
        )

    @group.command("set")
    def set_member(principal: str, role: str, everywhere: Everywhere = False) -> None:
        """Give a principal a role: viewer, contributor, builder, deployer or admin."""
        member = client().members.set(principal, role, project="-" if everywhere else None)
        show_one(member, {"principal": member.principal, "role": _role(member)})

    @group.command("remove")
    def remove_member(principal: str, everywhere: Everywhere = False) -> None:
        """Take a principal's role away."""
        from modelyard.metadata.v1 import member_service_pb2  # noqa: PLC0415

        client().members.remove(principal, project="-" if everywhere else None)
        show_one(member_service_pb2.RemoveMemberResponse(), {"removed": principal})


def register_tokens(group: typer.Typer) -> None:
    """Add `tokens` to the command line."""

    @group.command("list")
    def list_tokens() -> None:
        """List tokens, newest first."""
        show_list(
            client().tokens.list(),
            {
                "TOKEN": lambda t: leaf(t.name),
                "PRINCIPAL": lambda t: t.principal,
                "CREATED": lambda t: moment(t.create_time),
                "LAST USED": lambda t: moment(t.last_use_time),
                "EXPIRES": lambda t: moment(t.expire_time),
                "REVOKED": lambda t: moment(t.revoke_time),
            },
        )

    @group.command("create")
    def create_token(
        principal: str,
        role: Annotated[
            list[str] | None,
            typer.Option(
                help="project=role, e.g. default=builder, of all that its principal may do; "
                "repeatable. Without one the token is good for all of it."
            ),
        ] = None,
        right: Annotated[
            list[str] | None,
            typer.Option(help="On the installation: operate, work, control; repeatable."),
        ] = None,
        days: Annotated[
            float | None, typer.Option(min=0.001, max=36_500, help="How long it is valid.")
        ] = None,
    ) -> None:
        """Create a token; its secret is shown once."""
        made = client().tokens.create(
            principal,
            roles=dict(pair(text) for text in role or []),
            installation_rights=right or (),
            expire_time=None if days is None else datetime.now(UTC) + timedelta(days=days),
        )
        show_one(made, {"token": made.token.name, "secret": made.secret})

    @group.command("revoke")
    def revoke_token(token: str) -> None:
        """Revoke a token; it stops working within seconds."""
        revoked = client().tokens.revoke(token)
        show_one(revoked, {"token": revoked.name, "revoked": moment(revoked.revoke_time)})


def _role(member: Member) -> str:
    from modelyard.metadata.v1 import project_pb2  # noqa: PLC0415

    return project_pb2.Role.Name(member.role).removeprefix("ROLE_").lower()
