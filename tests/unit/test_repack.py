"""The in-tree Detectron2 package refuses everything but the one wheel it was written for."""

import importlib.util
import zipfile
from pathlib import Path

import pytest

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
