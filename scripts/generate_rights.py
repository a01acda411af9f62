"""Generate docs/rights.md from the rights that the protos declare.

Run as `uv run python -m scripts.generate_rights`; tests/protos fails when it is outdated.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pb2
from modelyard.common.v1 import access_pb2

from services.metadata.projects.domain import Role, rights_of

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTORS = ROOT / "protos" / "modelyard.binpb"
DOCUMENT = ROOT / "docs" / "rights.md"
HEAD = """\
# Who may call what

Made by `uv run python -m scripts.generate_rights` from the `access` options of the protos: edit
those. The verdicts for every RPC and every kind of caller are tested in `tests/rpc/rights`, from a
table of its own.

*By role*: the roles that hold the right in the project of the resource named by the field. What is
held on the whole installation is in the token (`installation_rights`), not in a role. Protected
aliases ask for DEPLOY; whether a caller without the right asks for what is there or for what is
not, the answer is the same. *Process*: where processes show certificates, only these may call.
"""


def document() -> str:
    """Return what docs/rights.md should hold."""
    found = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    parts = [HEAD]
    for file in found.file:
        if file.package.startswith("modelyard."):
            parts += [_section(file.package, service) for service in file.service]
    return "\n".join(parts)


def _section(package: str, service: descriptor_pb2.ServiceDescriptorProto) -> str:
    lines = [
        f"## {package}.{service.name}",
        "| RPC | right | by role, or held | resource |",
        "| --- | --- | --- | --- |",
        *(_line(method) for method in service.method),
    ]
    return "\n".join(lines) + "\n"


def _line(method: descriptor_pb2.MethodDescriptorProto) -> str:
    access = method.options.Extensions[access_pb2.access]
    right = access_pb2.Right.Name(access.right).removeprefix("RIGHT_")
    roles = [role.value.lower() for role in Role if right in rights_of(role)]
    if right == "AUTHENTICATED":
        held = "whoever has a valid credential"
    elif roles:
        held = ", ".join(roles)
    else:
        held = "on the installation"
    peers = [access_pb2.Peer.Name(peer).removeprefix("PEER_").lower() for peer in access.peers]
    held += f"; process: {', '.join(peers)}" if peers else ""
    resource = f"`{access.resource}`" if access.resource else ""
    return f"| {method.name} | {right} | {held} | {resource} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
