"""The protos keep the rules that the linter does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from modelyard.common.v1 import access_pb2, error_reason_pb2

from scripts import generate_rights
from services.common.auth import Right
from services.common.errors import Reason
from services.common.rpc.status import CODES

ROOT = Path(__file__).resolve().parents[2]
SET = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos/modelyard.binpb").read_bytes())
FILES = [file for file in SET.file if file.package.startswith("modelyard.")]
METHODS = [
    (f"{file.package}.{service.name}/{method.name}", method, file)
    for file in FILES
    for service in file.service
    for method in service.method
]
File = descriptor_pb2.FileDescriptorProto
Method = descriptor_pb2.MethodDescriptorProto
FIRST_WORDS = re.compile(r"^ ?(Required|Optional|Output only|Identifier)\b")
SERVICE, MESSAGE, FIELD, METHOD = 6, 4, 2, 2


def comments(file: File) -> dict[tuple[int, ...], str]:
    locations = file.source_code_info.location
    return {tuple(location.path): location.leading_comments for location in locations}


@pytest.mark.parametrize(("name", "method", "file"), METHODS, ids=[m[0] for m in METHODS])
def test_every_rpc_declares_a_right_on_a_field_that_exists(
    name: str, method: Method, file: File
) -> None:
    access = method.options.Extensions[access_pb2.access]
    assert access.right != access_pb2.RIGHT_UNSPECIFIED
    messages = {f".{f.package}.{m.name}": m for f in FILES for m in f.message_type}
    message: descriptor_pb2.DescriptorProto | None = messages[method.input_type]
    for part in filter(None, access.resource.split(".")):
        assert message is not None
        field = next(field for field in message.field if field.name == part)
        message = messages.get(field.type_name)
    if access.resource:
        assert message is None, "the last part is text, not a message"


def test_what_only_reads_leaves_no_entry_in_the_audit_trail() -> None:
    for name, method, _ in METHODS:
        access = method.options.Extensions[access_pb2.access]
        is_read = access.right in {access_pb2.RIGHT_READ, access_pb2.RIGHT_AUTHENTICATED}
        silent = access.audit == access_pb2.AUDIT_REFUSALS_ONLY or (
            is_read and access.audit != access_pb2.AUDIT_EVERY_CALL
        )
        if re.match("(List|Watch|Stream|Find|Read|Compare|Get(?!BuildSecrets))", method.name):
            assert silent, f"{name} only reads"
        if re.match("(Create|Update|Delete|Purge|Restore|Revoke|Set|Deploy)", method.name):
            assert not silent, f"{name} changes something"


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_every_rpc_says_its_errors(file: File) -> None:
    texts = comments(file)
    for number, service in enumerate(file.service):
        for index, method in enumerate(service.method):
            text = texts[SERVICE, number, METHOD, index]
            assert "Errors:" in text, method.name


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_request_fields_say_whether_they_are_required(file: File) -> None:
    texts = comments(file)
    for number, message in enumerate(file.message_type):
        for index, field in enumerate(message.field):
            if message.name.endswith("Request"):
                text = texts[MESSAGE, number, FIELD, index]
                assert FIRST_WORDS.match(text), f"{message.name}.{field.name}: {text!r}"


def test_nothing_foreign_is_imported() -> None:
    imported = {name for file in FILES for name in file.dependency}
    foreign = {n for n in imported if not n.startswith(("google/protobuf/", "modelyard/"))}
    assert foreign == set()


def test_reasons_and_rights_are_the_same_in_python() -> None:
    reasons = {n.removeprefix("ERROR_REASON_") for n in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - an enum, not a dict
    assert reasons - {"UNSPECIFIED"} == set(Reason) == set(CODES)
    rights = {name.removeprefix("RIGHT_") for name in access_pb2.Right.keys()}  # noqa: SIM118 - an enum, not a dict
    assert rights - {"UNSPECIFIED"} == set(Right)


def test_every_reason_is_documented_with_its_status() -> None:
    table = (ROOT / "docs/errors.md").read_text()
    for reason, code in CODES.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {code.name} "))
        assert reason.value in row


def test_the_document_of_rights_is_up_to_date() -> None:
    assert generate_rights.DOCUMENT.read_text("utf-8") == generate_rights.document()
