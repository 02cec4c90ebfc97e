"""Dockerfile and apptainer.def hold what a builder would stop at and a careful reader would object to; none is built here."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTIONS = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR"}
SECTIONS = {"files", "post", "environment", "runscript", "test", "labels", "help"}
PINNED = re.compile(r"[a-z0-9./-]+:\d[\w.-]+")  # a tag that begins with a version


def docker() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, rest in lines]


def apptainer() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the definition's header and the lines of its sections."""
    head, *parts = re.split(r"^%", (ROOT / "apptainer.def").read_text(), flags=re.M)
    header = dict(line.split(": ", 1) for line in head.splitlines() if line and not line.startswith("#"))
    bodies = (part.split("\n", 1) for part in parts)
    return header, {name: [line.strip() for line in body.splitlines() if line.strip()] for name, body in bodies}


def test_the_dockerfile_is_one_that_docker_takes_and_ends_without_root() -> None:
    found = docker()
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert [name for name, _ in found[:2]] == ["ARG", "FROM"]
    assert PINNED.fullmatch(found[0][1].removeprefix("BASE="))
    (made,) = re.findall(r"useradd .*--uid (\d+) (\w+)", " ".join(rest for _, rest in found))
    assert [rest for name, rest in found if name == "USER"] == [made[1]]
    assert int(made[0]) > 0
    for name, rest in found:
        if name == "COPY":
            assert (ROOT / rest.split()[0]).exists()
        if "apt-get install" in rest:
            assert all(
                part in rest for part in ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists")
            )
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", "/datasets", "/results", "/runs"} <= set(ignored)
    assert found[-1] == ("CMD", '["python", "/opt/masktransfer/tools/doctor.py"]')
    assert (ROOT / "tools" / "doctor.py").is_file()


def test_the_apptainer_definition_copies_every_package_and_installs_what_docker_installs() -> None:
    header, sections = apptainer()
    assert header["Bootstrap"] == "docker"
    assert f"BASE={header['From']}" == docker()[0][1]
    assert set(sections) <= SECTIONS
    copied = dict(line.split() for line in sections["files"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*built["packages"], built["hooks"]["custom"]["path"], project["project"]["readme"]}
    assert {*needed, "configs", "tools", "third_party", "requirements.txt", "Makefile", "pyproject.toml"} <= set(copied)
    for source, place in copied.items():
        assert (ROOT / source).exists() or source == ".git", source
        assert place == f"/opt/masktransfer/{source}"
    steps = " ".join(rest for name, rest in docker() if name == "RUN")
    for line in sections["post"]:
        assert line in steps or line.startswith(("cd ", "chmod ")), line
