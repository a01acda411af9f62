from __future__ import annotations

from pathlib import Path

import pytest
from modelyard._transport.config import ConnectionSettings, config_path, find_settings
from modelyard.errors import ConfigError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("from-token-file\n")
    (tmp_path / "config.toml").write_text(
        f'server = "file:1"\ntoken_file = "{tmp_path}/token"\nproject = "from-file"\n'
    )
    return {"MODELYARD_CONFIG": str(tmp_path / "config.toml")}


def test_the_config_file_is_enough(environ: dict[str, str]) -> None:
    found = find_settings(environ=environ)
    assert (found.server, found.token, found.project) == ("file:1", "from-token-file", "from-file")


def test_the_environment_goes_before_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {"MODELYARD_SERVER": "env:2", "MODELYARD_TOKEN": "t", "MODELYARD_PROJECT": "p"}
    found = find_settings(environ=environ)
    assert (found.server, found.token, found.project) == ("env:2", "t", "p")

    del environ["MODELYARD_TOKEN"]
    environ["MODELYARD_TOKEN_FILE"] = str(tmp_path / "token")
    assert find_settings(environ=environ).token == "from-token-file"


def test_arguments_go_before_everything(environ: dict[str, str]) -> None:
    environ |= {"MODELYARD_SERVER": "env:2", "MODELYARD_TOKEN": "t", "MODELYARD_PROJECT": "p"}
    found = find_settings("arg:3", token="a", project="q", environ=environ)
    assert (found.server, found.token, found.project) == ("arg:3", "a", "q")


def test_the_files_credential_goes_to_no_other_server(environ: dict[str, str]) -> None:
    assert find_settings("elsewhere:1", environ=environ).token == ""
    assert find_settings("file:1", environ=environ).token == "from-token-file"


def test_without_a_server_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="modelyard up") as caught:
        find_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert caught.value.reason == "NO_SERVER"


@pytest.mark.parametrize("text", ["server = ", "server = 7", "\xff"])
def test_a_bad_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        find_settings(environ={"MODELYARD_CONFIG": str(path)})


def test_a_named_token_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        find_settings("a:1", environ={"MODELYARD_TOKEN_FILE": str(tmp_path / "nothing-here")})


def test_a_config_file_need_not_be_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "nothing-here"
    assert find_settings("a:1", environ={"MODELYARD_CONFIG": str(path)}).server == "a:1"
    with pytest.raises(ConfigError, match="nothing-here"):
        find_settings(environ={"MODELYARD_CONFIG": str(path)})


def test_the_config_file_lies_where_others_do(tmp_path: Path) -> None:
    assert config_path({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "modelyard/config.toml"


@pytest.mark.parametrize(
    ("server", "target", "secure"),
    [
        ("host:1", "host:1", True),
        ("host", "host:7070", True),
        ("localhost.example.com", "localhost.example.com:7070", True),
        ("127.0.0.1:1", "127.0.0.1:1", False),
        ("localhost", "localhost:7070", False),
        ("dns:///localhost:7", "dns:///localhost:7", False),
        ("dns:///host:7", "dns:///host:7", True),
        ("https://host", "host:443", True),
        ("grpcs://host:7/", "host:7", True),
        ("http://host:7", "host:7", False),
        ("[::1]:7", "[::1]:7", False),
        ("[::1]", "[::1]:7070", False),
        ("unix:/run/m.sock", "unix:/run/m.sock", False),
    ],
)
def test_addresses(server: str, target: str, secure: bool) -> None:
    settings = ConnectionSettings(server)
    assert (settings.target, settings.secure) == (target, secure)


def test_a_certificate_authority_makes_it_secure(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    found = find_settings("host:1", root_certificates=tmp_path / "ca.pem", environ={})
    assert found.secure
    assert found.root_certificates == b"PEM"


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(ConnectionSettings("host:1", token="secret"))
