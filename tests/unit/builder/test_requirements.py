"""Requirements of a source: what is read of them, and what is refused before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.builder.worker.requirements import Requirements, RequirementsError, find

DIGEST = "sha256:" + "a" * 64


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(folder: Path, wanted: str = "") -> Requirements:
    found = find(folder, wanted)
    assert found is not None
    return found


def test_the_first_of_the_usual_files_is_read(tmp_path: Path) -> None:
    assert find(tmp_path, "") is None
    write(tmp_path, pyproject_toml="[tool.ruff]\nline-length = 100\n")
    assert find(tmp_path, "") is None
    write(tmp_path, pyproject_toml='[project]\nname = "x"\ndependencies = ["numpy>=1", "six"]\n')
    assert read(tmp_path).lines == ["numpy>=1", "six"]
    write(tmp_path, requirements_txt="pandas  # frames\n\nmodelyard==9\n")
    assert read(tmp_path).lines == ["pandas"]
    write(tmp_path, requirements_txt="six\nmodelyard[serving, data]>=0.1\n")
    assert read(tmp_path).lines == ["six", "modelyard[data]", "modelyard[serving]"]
    write(tmp_path, requirements_txt="-c bounds.txt\nsix\n", bounds_txt="modelyard[data]<9\n")
    assert (read(tmp_path).lines, read(tmp_path).constraints) == (["six"], [])
    write(tmp_path, requirements_lock=f"six==1.0 \\\n  --hash={DIGEST} \\\n  --hash={DIGEST}\n")
    assert read(tmp_path).lines == ["six==1.0"]
    assert read(tmp_path).hashes == {"six==1": frozenset({DIGEST})}
    assert read(tmp_path, "requirements.txt").file == "requirements.txt"


def test_files_of_the_source_are_followed_and_no_others(tmp_path: Path) -> None:
    source = write(
        tmp_path / "source",
        requirements_txt="-r deps/base.txt\n-c deps/bounds.txt\n",
        deps__base_txt="-r more.txt\nnumpy\n",
        deps__more_txt="six; python_version > '3'\n",
        deps__bounds_txt="numpy<3\n",
    )
    found = read(source)
    assert found.lines == ["six; python_version > '3'", "numpy"]
    assert found.constraints == ["numpy<3"]
    write(tmp_path, secret_txt="root:x:0\n")
    for line in ("-r ../secret.txt", "-r/etc/passwd", "--requirement=../secret.txt", "-c x.txt"):
        write(source, requirements_txt=f"six\n{line}\n")
        with pytest.raises(
            RequirementsError, match=r"line 2: .* is no file of the source"
        ) as caught:
            find(source, "")
        assert "root" not in str(caught.value)
    write(source, requirements_txt="-r requirements.txt\n")
    with pytest.raises(RequirementsError, match="no file of the source"):
        find(source, "")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("numpy=1", "line 1"),
        ("-e .", "the option -e is not supported"),
        ("--index-url https://user:pass@index.example", "the option --index-url is not"),
        ("./local", "line 1"),
        ("six @ https://example.com/six.whl", "cannot be locked"),
        ("git+https://example.com/six", "line 1"),
        (f"six --hash={DIGEST}", "must be pinned"),
        (f"six==1.* --hash={DIGEST}", "must be pinned"),
        (f"six==1 --hash={DIGEST}\nnumpy==1", "numpy has no hash, but others have"),
    ],
)
def test_what_cannot_be_read_says_where_and_why(tmp_path: Path, line: str, problem: str) -> None:
    write(tmp_path, requirements_txt=line)
    with pytest.raises(RequirementsError, match=problem) as caught:
        find(tmp_path, "")
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[project", "pyproject.toml: "),
        ("[tool.x]\n", "no \\[project\\]"),
        ('[project]\nname="x"\ndynamic=["dependencies"]\n', "dynamic"),
        ('[project]\nname="x"\ndependencies="numpy"\n', "must be a list"),
        ('[project]\nname="x"\nrequires-python="three"\n', "no version specifier"),
    ],
)
def test_projects_that_cannot_be_read(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path, pyproject_toml=text)
    with pytest.raises(RequirementsError, match=problem):
        find(tmp_path, "pyproject.toml")
    with pytest.raises(RequirementsError, match=r"has no nothing\.txt"):
        find(tmp_path, "nothing.txt")


def test_a_project_says_which_python_it_is_for(tmp_path: Path) -> None:
    write(tmp_path, pyproject_toml='[project]\nname="x"\nrequires-python=">=3.11.4,<3.13"\n')
    found = read(tmp_path)
    found.check_python("3.11")
    for version in ("3.10", "3.13"):
        with pytest.raises(RequirementsError, match="requires-python"):
            found.check_python(version)
