"""The house keeps its measures (docs/architecture.md), the tree its rules; `python tests/docs/test_house.py` prints them."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest

from core import plugins
from transfer import benchmarks

ROOT = Path(__file__).resolve().parents[2]
# Drawn for 38,500 lines; what was built into it since has its own.
LIMITS = {
    "rooms directly in transfer/": 7, "floors of rooms in transfer/ (longest chain of imports)": 3,
    "Python files in transfer/": 100, "Python files in the tree": 360, "lines of Python in the tree": 57_500,
    "files in docs/": 60, "megabytes in docs/": 4.0,
}  # fmt: skip


def measured() -> dict[str, float]:
    """Return each measure of the files that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    python = [path for path in files if path.suffix == ".py"]
    docs = [path for path in files if path.is_relative_to(ROOT / "docs")]
    transfer = [path for path in python if path.is_relative_to(ROOT / "transfer")]
    rooms = {path.relative_to(ROOT / "transfer").parts[0].removesuffix(".py") for path in transfer} - {"__init__"}
    values = (
        len(rooms), floors(rooms), len(transfer), len(python),
        sum(len(path.read_text().splitlines()) for path in python), len(docs),
        round(sum(path.stat().st_size for path in docs) / 1e6, 1),
    )  # fmt: skip
    return dict(zip(LIMITS, values, strict=True))


def floors(rooms: set[str]) -> int:
    """Return the length of the longest chain of rooms that import each other."""
    graph = grimp.build_graph("transfer")
    for room in rooms:
        graph.squash_module(f"transfer.{room}")
    below = {
        room: [
            m
            for m in rooms - {room}
            if graph.direct_import_exists(importer=f"transfer.{room}", imported=f"transfer.{m}")
        ]
        for room in rooms
    }

    def height(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle of rooms: {' → '.join((*above, room))}"
        return 1 + max((height(other, (*above, room)) for other in below[room]), default=0)

    return max(map(height, rooms))


def test_the_house_keeps_its_measures() -> None:
    beyond = {name: value for name, value in measured().items() if value > LIMITS[name]}
    assert not beyond


def test_every_room_of_transfer_stands_on_a_floor_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors_,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["transfer"]]
    named = {room.strip() for floor in floors_ for room in floor.split("|")}
    there = {p.stem for p in (ROOT / "transfer").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert named == there - {"__init__"}


# ---- the tree keeps its own rules; its tools answer --help without the imports that take seconds ----


TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
PYTHON = [Path(name) for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]


def test_no_file_in_a_script_folder_hides_a_standard_module():
    """``python pretrain/run.py`` puts that folder first on sys.path."""
    hiding = [
        p
        for p in PYTHON
        if p.parts[0] in ("pretrain", "tools") and len(p.parts) == 2 and p.stem in sys.stdlib_module_names
    ]
    assert hiding == []


def test_no_file_is_a_drawer_for_everything():
    assert [p for p in PYTHON if p.stem in ("utils", "util", "helpers", "helper", "misc", "common")] == []


def test_no_file_names_a_registry_host():
    hosts = re.compile(
        "|".join(["python" + r"hosted\.org", "pypi" + r"\.org", "deb" + r"\.debian", "registry" + r"\.npmjs"])
    )
    texts = [
        n for n in TRACKED if n.endswith((".py", ".md", ".toml", ".txt", ".yaml", ".cff", ".sh")) or n == "Makefile"
    ]
    assert [n for n in texts if (ROOT / n).exists() and hosts.search((ROOT / n).read_text())] == []


SCRIPTS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if path.name != "checkout.py")
TOOLS = [*(f"tools/{name}" for name in SCRIPTS), "pretrain/run.py"]
HEAVY = ("torch", "torchvision", "detectron2", "mmseg", "mmengine", "mmcv", "cv2", "timm")
SLOW = (*HEAVY, "numpy", "scipy", "PIL", "pydantic", "omegaconf", "rich", "jinja2", "yaml")
CHILD = """
import json, runpy, sys
script, names = sys.argv[1], json.loads(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
sys.path.insert(0, script.rpartition("/")[0])
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("imported:", json.dumps([name for name in names if name in sys.modules]))
"""


def imported(script: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """Run a script in a child process and return which of the modules it imported."""
    command = [sys.executable, "-c", CHILD, script, json.dumps(names), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--help" not in arguments or "usage" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("imported: ")
    return list(json.loads(last.removeprefix("imported: ")))


@pytest.mark.parametrize("script", TOOLS)
def test_help_imports_nothing_that_takes_long(script: str) -> None:
    assert imported(script, SLOW, "--help") == []


def test_a_report_is_written_without_torch(tmp_path: Path) -> None:
    import made_results  # here: the script above runs without tests/ in its path

    made_results.suite(tmp_path)
    found = imported("tools/write_report.py", HEAVY, str(tmp_path), "--baseline", "MSCN")
    assert found == []
    assert (tmp_path / "report" / "report.html").is_file()


def test_what_there_is_can_be_listed_by_name_and_as_json() -> None:
    command = [sys.executable, "tools/list.py"]
    shown = subprocess.run([*command, "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(benchmarks.shipped())
    listed = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(listed)
    assert found["masks"].keys() == set(plugins.names("pretrain.masks"))
    assert all(about for sort in found.values() for about in sort.values())
    misspelt = subprocess.run([*command, "benchmark"], cwd=ROOT, capture_output=True, text=True)
    assert misspelt.returncode == 2
    assert misspelt.stderr.endswith("argument sort: no 'benchmark'; did you mean benchmarks?\n")


def test_doctor_leaves_the_import_of_frameworks_to_its_child_processes() -> None:
    code = (
        "import subprocess, sys; sys.path.insert(0, 'tools'); import doctor; sys.argv = ['doctor']; asked = []\n"
        "doctor._run = lambda code: asked.append(code) or subprocess.CompletedProcess(code, 0, 'cpu', '')\n"
        "assert doctor.main() == 0\n"
        "assert 'import torch' in asked\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name != 'cv2'])"
    )  # the layouts of datasets, which it lists, read pictures with OpenCV
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# ---- the in-tree Detectron2 package refuses everything but the one wheel it was written for ----


SCRIPT = Path(__file__).resolve().parents[2] / "third_party/detectron2/repack.py"


@pytest.fixture
def repack(monkeypatch):
    spec = importlib.util.spec_from_file_location("repack", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("DETECTRON2_WHEEL", raising=False)
    return module


def stand_in(repack, path: Path, **changes: str) -> Path:
    """Make a small wheel that holds just the texts the patches look for."""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, patches in repack.PATCHES.items():
            wheel.writestr(name, changes.get(name, "# start\n" + "\n".join(old for old, _, _ in patches) + "\n# end\n"))
        wheel.writestr("detectron2/layers/nms.py", "x = 1\n")
        wheel.writestr("detectron2/_C.cpython-310-x86_64-linux-gnu.so", "compiled")
        wheel.writestr("sal_detectron2-0.7.2.dist-info/LICENSE", "licence")
        wheel.writestr("sal_detectron2-0.7.2.dist-info/METADATA", "Name: other")
    return path


def test_an_altered_wheel_is_refused_with_both_hashes(repack, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_WHEEL", str(stand_in(repack, tmp_path / "d2.whl")))
    with pytest.raises(repack.RepackError, match=rf"has sha256 [0-9a-f]{{64}}, expected {repack.SHA256}; delete it"):
        repack.build_wheel(str(tmp_path))
    assert not list(tmp_path.glob("detectron2-*.whl"))


def test_a_missing_offline_copy_is_named(repack, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_WHEEL", str(tmp_path / "none.whl"))
    with pytest.raises(
        repack.RepackError, match=r"none\.whl is not a file; unset it to download sal-detectron2==0\.7\.2"
    ):
        repack.build_wheel(str(tmp_path))


def test_without_a_network_the_offline_way_is_told(repack, tmp_path, monkeypatch):
    monkeypatch.setattr(repack.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1}))
    with pytest.raises(repack.RepackError, match="fetch the wheel elsewhere and set DETECTRON2_WHEEL"):
        repack.build_wheel(str(tmp_path))


def test_a_source_that_changed_under_a_patch_is_refused(repack):
    with pytest.raises(
        repack.RepackError, match=r"mask_ops\.py: expected 'np\.array\(mask, copy=False\)' once, found it 2"
    ):
        repack.patched("detectron2/layers/mask_ops.py", b"np.array(mask, copy=False) np.array(mask, copy=False)")


def test_the_repacked_wheel_is_pure_python_patched_and_the_same_every_time(repack, tmp_path, monkeypatch):
    source = stand_in(repack, tmp_path / "d2.whl")
    monkeypatch.setenv("DETECTRON2_WHEEL", str(source))
    monkeypatch.setattr(repack, "SHA256", __import__("hashlib").sha256(source.read_bytes()).hexdigest())
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        name = repack.build_wheel(str(tmp_path / folder))
        assert name == "detectron2-0.6.post20240417-py3-none-any.whl"
        contents.append((tmp_path / folder / name).read_bytes())
    assert contents[0] == contents[1]
    with zipfile.ZipFile(tmp_path / "one" / name) as wheel:
        names = wheel.namelist()
        assert not [n for n in names if n.endswith(".so")]
        assert b"np.asarray(mask)" in wheel.read("detectron2/layers/mask_ops.py")
        assert b"importlib.resources" in wheel.read("detectron2/model_zoo/model_zoo.py")
        record = wheel.read("detectron2-0.6.post20240417.dist-info/RECORD").decode()
    assert all(f"{n}," in record for n in names)


if __name__ == "__main__":
    for name, value in measured().items():
        print(f"{value:>8,} of at most {LIMITS[name]:>8,}  {name}")
