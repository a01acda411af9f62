"""Projects: changing them, and what they protect."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask
from modelyard.metadata.v1 import project_pb2
from modelyard.metadata.v1 import project_service_pb2 as pb

from tests.contract.metadata.desk import PROJECT, Desk


async def test_a_project_is_changed_as_the_mask_says(admin: Desk) -> None:
    wanted = project_pb2.Project(
        name=PROJECT, display_name="Risk", description="x", protected_aliases=["production", "live"]
    )
    mask = FieldMask(paths=["display_name", "protected_aliases"])
    request = pb.UpdateProjectRequest(project=wanted, update_mask=mask)
    changed = (await admin.call(admin.projects.UpdateProject, request)).project
    assert changed.display_name == "Risk"
    assert changed.description == ""
    assert list(changed.protected_aliases) == ["live", "production"]
    found = await admin.call(admin.projects.GetProject, pb.GetProjectRequest(name=PROJECT))
    assert found.project == changed
    empty = pb.UpdateProjectRequest(project=project_pb2.Project(name=PROJECT), update_mask=mask)
    assert not (await admin.call(admin.projects.UpdateProject, empty)).project.protected_aliases


async def test_odd_changes_are_refused(admin: Desk) -> None:
    stale = pb.UpdateProjectRequest(
        project=project_pb2.Project(name=PROJECT, description="y", etag="0")
    )
    odd = project_pb2.Project(name=PROJECT, protected_aliases=["Not An Id"])
    many = project_pb2.Project(name=PROJECT, protected_aliases=[f"a{i}" for i in range(65)])
    absent = project_pb2.Project(name="projects/absent", description="y")
    mask = FieldMask(paths=["etag"])
    call = admin.projects.UpdateProject
    assert (await admin.refused(call, stale))[1] == "ETAG_MISMATCH"
    for project, reason in ((odd, "INVALID_NAME"), (many, "INVALID_FIELD")):
        refused = await admin.refused(call, pb.UpdateProjectRequest(project=project))
        assert refused[1] == reason
    refused = await admin.refused(call, pb.UpdateProjectRequest(project=absent))
    assert refused[1] == "RESOURCE_NOT_FOUND"
    named = project_pb2.Project(name=PROJECT)
    masked = pb.UpdateProjectRequest(project=named, update_mask=mask)
    assert (await admin.refused(call, masked))[1] == "INVALID_FIELD"
