"""The documentation names only what exists; container files are sound."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"```(?:bash|sh|console)\n(.*?)```", re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def commands(page: Path) -> list[str]:
    text = "\n".join(FENCE.findall(page.read_text())).replace("\\\n", " ")
    return [
        line.split(" #")[0].strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_into_the_project_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page_id(page)} links to {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page_id(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_names_scripts_configs_options_and_targets_that_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(page):
        words = command.split()
        for word in words:
            if re.match(r"(tools|pretrain|configs|benchmarks)/", word):
                assert list(ROOT.glob(word)), f"{page_id(page)}: {command}: no {word}"
        if words[0] == "make":
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{target}:", makefile, re.M), f"{page_id(page)}: {command}"
        scripts = [ROOT / word for word in words if word.startswith(("tools/", "pretrain/")) and word.endswith(".py")]
        own = (
            words[words.index(str(scripts[0].relative_to(ROOT))) :] if len(scripts) == 1 else []
        )  # torchrun's stand before
        for option in re.findall(r"(?<=\s)--[a-z][a-z0-9_-]*", " ".join(own)):
            assert option in help_text(scripts[0]), f"{page_id(page)}: {command}: no option {option}"


_HELP: dict[Path, str] = {}


def help_text(script: Path) -> str:
    if script not in _HELP:
        done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        _HELP[script] = done.stdout
        for name in re.findall(r"\{([a-z0-9,-]+)\}", done.stdout):  # subcommands have options of their own
            for sub in name.split(","):
                more = subprocess.run(
                    [sys.executable, str(script), sub, "--help"], capture_output=True, text=True, cwd=ROOT
                )
                _HELP[script] += more.stdout
    return _HELP[script]


def test_the_readme_has_what_a_newcomer_looks_for():
    text = (ROOT / "README.md").read_text()
    for part in ("make demo", "make test", "docs/pictures/", "pretrain/run.py", "tools/convert_to_d2.py", "How to add"):
        assert part in text, part


def test_every_dependency_is_accounted_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for need in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name = re.split(r"[<>=~!; \[]", need)[0]
        assert f"| {name} |" in page, f"docs/dependencies.md has no line for {name}"


def test_public_backbones_are_those_of_timm_and_torchvision():
    import torchvision
    from timm.models import get_pretrained_cfg

    from core.backbones.timm import KNOWN

    page = (ROOT / "docs" / "public-backbones.md").read_text()
    listed = re.findall(r"^\| `hf://(timm/(\S+))` \| (\S+) \|", page, re.M)
    assert len(listed) >= 10
    read = rf"(resnet(18|34|50)|convnext(v2)?_tiny|{'|'.join(name for _, names in KNOWN for name in names)})\."
    for place, name, licence in listed:
        known = get_pretrained_cfg(name)
        assert (known.hf_hub_id, known.license) == (place, licence)
        assert re.match(read, name), f"{name} is no network that is read"
    weights = re.findall(r"^\| `(\w+)\.(\w+)` \| ([\d.]+) \|", page, re.M)
    assert len(weights) == 5
    for enum, name, top1 in weights:
        assert getattr(torchvision.models, enum)[name].meta["_metrics"]["ImageNet-1K"]["acc@1"] == float(top1)


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
