"""Projects, tokens, delegations: who may do what."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import member_pb2, project_pb2, token_pb2
from modelyard.metadata.v1 import member_service_pb2 as members_pb
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import project_service_pb2 as pb

from services.common.settings import SettingsError
from services.metadata.settings import MetadataSettings
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, eventually, metadata_running

BUILD = f"{PROJECT}/builds/b1"
READ, WRITE, DEPLOY = access_pb2.RIGHT_READ, access_pb2.RIGHT_WRITE, access_pb2.RIGHT_DEPLOY
FORGED = (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIAL")
LACKING = (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
CONTRIBUTOR = token_pb2.Grant(project=PROJECT, role=project_pb2.ROLE_CONTRIBUTOR)
ADMIN, READER = project_pb2.ROLE_ADMIN, project_pb2.ROLE_VIEWER
VIEWER = token_pb2.Grant(project=PROJECT, role=project_pb2.ROLE_VIEWER)


async def introspect(desk: Desk) -> pb.IntrospectCredentialResponse:
    answer: pb.IntrospectCredentialResponse = await desk.call(
        desk.projects.IntrospectCredential, pb.IntrospectCredentialRequest()
    )
    return answer


async def delegated(desk: Desk, *rights: access_pb2.Right.ValueType, resource: str = BUILD) -> str:
    request = pb.IssueDelegationRequest(resource=resource, rights=rights)
    answer = await desk.call(desk.projects.IssueDelegation, request)
    secret: str = answer.delegation
    return secret


async def test_first_start_makes_a_project_and_private_token_files(admin: Desk) -> None:
    page = await admin.call(admin.projects.ListProjects, pb.ListProjectsRequest())
    assert [project.name for project in page.projects] == [PROJECT]
    files = sorted(admin.house.tokens.iterdir())
    names = [f"{n}.token" for n in ("admin", "agent", "builder", "deployer", "worker")]
    assert [file.name for file in files] == names
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(admin.house.tokens.stat().st_mode) == 0o700
    who = {
        name: await introspect(admin.as_caller(admin.house.secret(name)))
        for name in ("admin", "worker", "agent", "builder", "deployer")
    }
    assert who["admin"].principal == "user:admin"
    assert [r.project for r in who["admin"].project_rights] == ["projects/-"]
    rights = {name: list(found.installation_rights) for name, found in who.items()}
    assert rights == {
        "admin": [access_pb2.RIGHT_AUDIT, access_pb2.RIGHT_OPERATE],
        "worker": [access_pb2.RIGHT_WORK],
        "agent": [access_pb2.RIGHT_CONTROL],
        "builder": [access_pb2.RIGHT_DELEGATE],
        "deployer": [access_pb2.RIGHT_DELEGATE],
    }


async def test_a_changed_token_file_takes_over(
    settings: MetadataSettings, artifact_port: int
) -> None:
    async with metadata_running(settings, artifact_port) as house:
        old = house.secret("worker")
    new = "myd_" + "A" * 43
    (Path(settings.tokens_dir) / "worker.token").write_text(new + "\n")
    async with (
        metadata_running(settings, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        assert (await introspect(Desk(channel, house, new))).principal == "service:worker"
        gone = Desk(channel, house, old)
        request = pb.IntrospectCredentialRequest()
        assert await gone.refused(gone.projects.IntrospectCredential, request) == FORGED
    (Path(settings.tokens_dir) / "worker.token").write_text("guess-me\n")
    await is_not_started(settings, artifact_port)
    (Path(settings.tokens_dir) / "worker.token").write_text(new + "\n")
    (Path(settings.tokens_dir) / "worker.token").chmod(0o644)
    await is_not_started(settings, artifact_port)


async def is_not_started(settings: MetadataSettings, artifact_port: int) -> None:
    with pytest.raises(SettingsError, match=r"worker\.token"):
        async with metadata_running(settings, artifact_port):
            pass


async def test_projects_are_created_once_and_seen_by_those_who_may(admin: Desk) -> None:
    request = pb.CreateProjectRequest(
        project_id="risk", project=project_pb2.Project(display_name="Risk")
    )
    made = (await admin.call(admin.projects.CreateProject, request)).project
    assert (made.name, made.display_name, made.etag) == ("projects/risk", "Risk", "1")
    answers = await asyncio.gather(
        *(admin.refused(admin.projects.CreateProject, request) for _ in range(4))
    )
    assert set(answers) == {(grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")}
    viewer = await admin.new_caller("user:vi", VIEWER)
    page = await viewer.call(viewer.projects.ListProjects, pb.ListProjectsRequest())
    assert [project.name for project in page.projects] == [PROJECT]
    hidden = pb.GetProjectRequest(name="projects/risk")
    absent = pb.GetProjectRequest(name="projects/nowhere")
    assert await viewer.refused(viewer.projects.GetProject, hidden) == LACKING
    assert await viewer.refused(viewer.projects.GetProject, absent) == LACKING
    assert (await admin.refused(admin.projects.GetProject, absent))[1] == "RESOURCE_NOT_FOUND"
    first = await admin.call(admin.projects.ListProjects, pb.ListProjectsRequest(page_size=1))
    rest = await admin.call(
        admin.projects.ListProjects,
        pb.ListProjectsRequest(page_size=1, page_token=first.next_page_token),
    )
    assert [p.name for p in (*first.projects, *rest.projects)] == [PROJECT, "projects/risk"]


async def test_roles_give_their_rights_and_no_more(admin: Desk) -> None:
    viewer = await admin.new_caller("user:vi", VIEWER)
    writer = await admin.new_caller("user:co", CONTRIBUTOR)
    create = models_pb.CreateModelRequest(parent=PROJECT, model_id="churn")
    assert await viewer.refused(viewer.models.CreateModel, create) == LACKING
    await writer.call(writer.models.CreateModel, create)
    await viewer.call(viewer.models.GetModel, models_pb.GetModelRequest(name=MODEL))
    elsewhere = models_pb.CreateModelRequest(parent="projects/other", model_id="churn")
    assert await writer.refused(writer.models.CreateModel, elsewhere) == LACKING
    token = pb.CreateTokenRequest(token=token_pb2.Token(principal="user:me"))
    assert await writer.refused(writer.projects.CreateToken, token) == LACKING
    assert await writer.refused(writer.projects.ListTokens, pb.ListTokensRequest()) == LACKING
    renewal = pb.RenewDelegationRequest(delegation=await delegated(writer, READ))
    assert await writer.refused(writer.projects.RenewDelegation, renewal) == LACKING


async def test_tokens_are_shown_once_revoked_and_expire(admin: Desk) -> None:
    request = pb.CreateTokenRequest(
        token=token_pb2.Token(principal="user:ada", grants=[VIEWER]), request_id="one"
    )
    made = await admin.call(admin.projects.CreateToken, request)
    assert made.secret.startswith("myd_")
    again = await admin.refused(admin.projects.CreateToken, request)
    assert again == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
    page = await admin.call(admin.projects.ListTokens, pb.ListTokensRequest())
    assert [t.principal for t in page.tokens].count("user:ada") == 1
    ada = admin.as_caller(made.secret)
    assert (await introspect(ada)).principal == "user:ada"
    revoke = pb.RevokeTokenRequest(name=made.token.name)
    revoked = (await admin.call(admin.projects.RevokeToken, revoke)).token
    assert revoked == (await admin.call(admin.projects.RevokeToken, revoke)).token
    assert await ada.refused(ada.projects.ListProjects, pb.ListProjectsRequest()) == FORGED
    missing = pb.RevokeTokenRequest(name="tokens/none")
    assert (await admin.refused(admin.projects.RevokeToken, missing))[1] == "RESOURCE_NOT_FOUND"
    past = token_pb2.Token(principal="user:eve", expire_time=Timestamp(seconds=1))
    expired = await admin.refused(admin.projects.CreateToken, pb.CreateTokenRequest(token=past))
    assert expired == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_tokens_are_checked(admin: Desk) -> None:
    odd = [token_pb2.Token(principal=text) for text in ("", "  ", "a\nb", "nul\0", "x" * 201)]
    odd.append(token_pb2.Token(principal="user:a", installation_rights=[READ]))
    odd.append(token_pb2.Token(principal="user:a", grants=[token_pb2.Grant(project=PROJECT)]))
    for token in odd:
        request = pb.CreateTokenRequest(token=token)
        assert (await admin.refused(admin.projects.CreateToken, request))[1] == "INVALID_FIELD"


async def test_delegations_act_for_their_principal_within_their_rights(admin: Desk) -> None:
    writer = await admin.new_caller("user:co", CONTRIBUTOR)
    work = writer.as_caller(await delegated(writer, READ, WRITE))
    found = await introspect(work)
    assert (found.principal, found.delegated_resource) == ("user:co", BUILD)
    assert [(r.project, list(r.rights)) for r in found.project_rights] == [(PROJECT, [READ, WRITE])]
    create = models_pb.CreateModelRequest(parent=PROJECT, model_id="churn")
    await work.call(work.models.CreateModel, create)
    more = pb.IssueDelegationRequest(resource=BUILD, rights=[DEPLOY])
    assert await writer.refused(writer.projects.IssueDelegation, more) == LACKING
    nowhere = pb.IssueDelegationRequest(resource="builds/b1", rights=[READ])
    assert (await writer.refused(writer.projects.IssueDelegation, nowhere))[1] == "INVALID_NAME"
    none = pb.IssueDelegationRequest(resource=BUILD, rights=[])
    assert (await writer.refused(writer.projects.IssueDelegation, none))[1] == "INVALID_FIELD"
    head, body, signature = work.credential.split(".")
    for text in (f"{head}.{body}.{signature[::-1]}", f"{head}.{body}.", "a.b.c", "junk", "myd_x"):
        forged = work.as_caller(text)
        request = pb.IntrospectCredentialRequest()
        assert await forged.refused(forged.projects.IntrospectCredential, request) == FORGED


async def test_delegations_end_with_their_principals_rights(admin: Desk) -> None:
    writer = await admin.new_caller("user:co", CONTRIBUTOR)
    work = writer.as_caller(await delegated(writer, READ, WRITE))
    builder = admin.as_caller(admin.house.secret("builder"))
    renew = pb.RenewDelegationRequest(delegation=work.credential)
    renewed = await builder.call(builder.projects.RenewDelegation, renew)
    assert (await introspect(work.as_caller(renewed.delegation))).principal == "user:co"
    await admin.new_caller("user:co", VIEWER)
    page = await admin.call(admin.projects.ListTokens, pb.ListTokensRequest())
    for token in page.tokens:
        if token.principal == "user:co" and token.grants[0].role == project_pb2.ROLE_CONTRIBUTOR:
            request = pb.RevokeTokenRequest(name=token.name)
            await admin.call(admin.projects.RevokeToken, request)
    # He may still read: so may his work, and no more.
    assert list((await introspect(work)).project_rights[0].rights) == [READ]
    assert await builder.refused(builder.projects.RenewDelegation, renew) == LACKING
    renew.rights.append(READ)
    narrow = await builder.call(builder.projects.RenewDelegation, renew)
    page = await admin.call(admin.projects.ListTokens, pb.ListTokensRequest())
    for token in page.tokens:
        if token.principal == "user:co":
            request = pb.RevokeTokenRequest(name=token.name)
            await admin.call(admin.projects.RevokeToken, request)
    gone = work.as_caller(narrow.delegation)
    question = pb.IntrospectCredentialRequest()
    assert await gone.refused(gone.projects.IntrospectCredential, question) == FORGED


async def test_expired_delegations_are_renewed_not_used(
    settings: MetadataSettings, artifact_port: int
) -> None:
    short = replace(settings, delegation_seconds=0.0)
    async with (
        metadata_running(short, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        admin = Desk(channel, house, house.secret("admin"))
        work = admin.as_caller(await delegated(admin, READ))
        request = pb.IntrospectCredentialRequest()
        assert await work.refused(work.projects.IntrospectCredential, request) == FORGED
        builder = admin.as_caller(house.secret("builder"))
        renew = pb.RenewDelegationRequest(delegation=work.credential)
        assert (await builder.call(builder.projects.RenewDelegation, renew)).delegation
    # The key outlives the process: what was issued before it still counts.
    async with (
        metadata_running(settings, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        builder = Desk(channel, house, house.secret("builder"))
        answer = await builder.call(builder.projects.RenewDelegation, renew)
        assert (await introspect(builder.as_caller(answer.delegation))).principal == "user:admin"
    ancient = replace(settings, delegation_seconds=-31 * 86_400.0)
    async with (
        metadata_running(ancient, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        admin = Desk(channel, house, house.secret("admin"))
        builder = admin.as_caller(house.secret("builder"))
        renew = pb.RenewDelegationRequest(delegation=await delegated(admin, READ))
        assert await builder.refused(builder.projects.RenewDelegation, renew) == FORGED


async def test_the_last_use_of_a_token_is_noted(admin: Desk) -> None:
    viewer = await admin.new_caller("user:vi", VIEWER)

    async def noted() -> bool:
        await introspect(viewer)
        page = await admin.call(admin.projects.ListTokens, pb.ListTokensRequest())
        (token,) = [token for token in page.tokens if token.principal == "user:vi"]
        return bool(token.last_use_time.seconds >= token.create_time.seconds)

    await eventually(noted)


async def test_members_are_given_roles_and_the_last_admin_stays(admin: Desk) -> None:
    def put(
        principal: str,
        role: project_pb2.Role.ValueType,
        parent: str = PROJECT,
        request_id: str = "",
    ) -> members_pb.SetMemberRequest:
        member = member_pb2.Member(principal=principal, role=role)
        return members_pb.SetMemberRequest(parent=parent, member=member, request_id=request_id)

    # A token without grants is good for what its principal is a member of.
    ada, bob = await admin.new_caller("user:ada"), await admin.new_caller("user:bob")
    await admin.call(admin.members.SetMember, put("user:ada", ADMIN))
    await ada.call(ada.members.SetMember, put("user:bob", READER))
    listing = members_pb.ListMembersRequest(parent=PROJECT, page_size=1)
    first = await bob.call(bob.members.ListMembers, listing)
    listing.page_token = first.next_page_token
    rest = await bob.call(bob.members.ListMembers, listing)
    found = [(m.principal, m.setter) for m in (*first.members, *rest.members)]
    assert found == [("user:ada", "user:admin"), ("user:bob", "user:ada")]

    assert await bob.refused(bob.members.SetMember, put("user:bob", ADMIN)) == LACKING
    everywhere = put("user:ada", ADMIN, "projects/-")
    assert await ada.refused(ada.members.SetMember, everywhere) == LACKING
    leave = members_pb.RemoveMemberRequest(parent=PROJECT, principal="user:ada")
    stays = (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
    assert await ada.refused(ada.members.SetMember, put("user:ada", READER)) == stays
    assert await ada.refused(ada.members.RemoveMember, leave) == stays
    await ada.call(ada.members.SetMember, put("user:bob", ADMIN))
    await ada.call(ada.members.RemoveMember, leave)
    assert await ada.refused(ada.members.RemoveMember, leave) == LACKING

    absent = put("user:a", READER, "projects/absent")
    assert (await admin.refused(admin.members.SetMember, absent))[1] == "RESOURCE_NOT_FOUND"
    for odd in (put("", READER), put("user:a", project_pb2.ROLE_UNSPECIFIED)):
        assert (await admin.refused(admin.members.SetMember, odd))[1] == "INVALID_FIELD"
    twice = put("user:c", READER, request_id="one")
    made = await admin.call(admin.members.SetMember, twice)
    assert made == await admin.call(admin.members.SetMember, twice)
