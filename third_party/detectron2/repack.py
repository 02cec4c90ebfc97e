"""PEP 517 backend: fetch one pinned Detectron2 wheel, check it, and repack it as pure Python.

Detectron2 has no release of its own on the package registry. The wheel named below carries upstream commit a59f0563
with a ``_C`` extension for CPython 3.10 only; without that extension the Python code runs on every version, and the
models used here (C4 and FPN) need none of the compiled operators.

Set ``DETECTRON2_WHEEL`` to the path of a downloaded copy to build without a network.
"""

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = "sal-detectron2==0.7.2"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
TIMESTAMP = (2024, 4, 17, 0, 0, 0)  # fixed, so that the same input gives the same wheel
WHEEL = "Wheel-Version: 1.0\nGenerator: repack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PROJECT = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())["project"]
DIST_INFO = f"{PROJECT['name']}-{PROJECT['version']}.dist-info"

# file -> (text that must occur exactly once, its replacement, why)
PATCHES: dict[str, list[tuple[str, str, str]]] = {
    "detectron2/__init__.py": [
        ('__version__ = "0.7.2"', '__version__ = "0.6"', "the version upstream gives this commit")
    ],
    "detectron2/model_zoo/model_zoo.py": [
        ("import pkg_resources\n", "import importlib.resources\n", "pkg_resources left setuptools in version 81"),
        (
            'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
            'str(importlib.resources.files("detectron2.model_zoo").joinpath("configs", config_path))',
            "as above",
        ),
    ],
    "detectron2/evaluation/sem_seg_evaluation.py": [
        (
            "np.array(Image.open(f), copy=copy, dtype=dtype)",
            "np.asarray(Image.open(f), dtype=dtype)",
            "numpy 2 raises on copy=False",
        )
    ],
    "detectron2/layers/mask_ops.py": [
        ("np.array(mask, copy=False)", "np.asarray(mask)", "numpy 2 raises on copy=False")
    ],
}


class RepackError(RuntimeError):
    """The pinned wheel is missing, altered, or not the text the patches were written for."""


def source_wheel(folder: Path) -> Path:
    """Return the pinned wheel, from ``DETECTRON2_WHEEL`` or the package registry, with its sha256 checked."""
    local = os.environ.get("DETECTRON2_WHEEL")
    wheel = Path(local) if local else _download(folder)
    if not wheel.is_file():
        raise RepackError(f"DETECTRON2_WHEEL={wheel} is not a file; unset it to download {SOURCE}")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise RepackError(f"{wheel} has sha256 {found}, expected {SHA256}; delete it and fetch {SOURCE} again")
    return wheel


def _download(folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{SOURCE} --hash=sha256:{SHA256}\n")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--python-version=3.10", "--implementation=cp", "--abi=none", "--platform=any",
        f"--requirement={requirement}", f"--dest={folder}",
    ]  # fmt: skip
    environment = dict(os.environ)
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):  # uv's index setting reaches pip too
        if name in os.environ:
            environment.setdefault("PIP_INDEX_URL", os.environ[name])
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
        raise RepackError(
            f"could not download {SOURCE} (is there a network?); fetch the wheel elsewhere and set DETECTRON2_WHEEL to its path"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def patched(name: str, data: bytes) -> bytes:
    """Apply the patches of one file; refuse when the text to replace is not there exactly once."""
    for old, new, _ in PATCHES.get(name, []):
        if data.count(old.encode()) != 1:
            raise RepackError(f"{name}: expected {old!r} once, found it {data.count(old.encode())} times")
        data = data.replace(old.encode(), new.encode())
    return data


def _metadata() -> str:
    head = {
        "Metadata-Version": "2.1", "Name": PROJECT["name"], "Version": PROJECT["version"],
        "Summary": PROJECT["description"], "Requires-Python": PROJECT["requires-python"],
    }  # fmt: skip
    lines = [f"{key}: {value}" for key, value in head.items()]
    return "\n".join(lines + [f"Requires-Dist: {need}" for need in PROJECT["dependencies"]]) + "\n"


def _members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as source:
        for name in sorted(source.namelist()):
            if name.startswith("detectron2/") and not name.endswith(("/", ".so")):
                yield name, patched(name, source.read(name))
            elif name.endswith("dist-info/LICENSE"):
                yield f"{DIST_INFO}/LICENSE", source.read(name)
    yield f"{DIST_INFO}/METADATA", _metadata().encode()
    yield f"{DIST_INFO}/WHEEL", WHEEL.encode()


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict | None = None) -> str:
    """PEP 517: write the metadata only, which needs no download."""
    folder = Path(metadata_directory) / DIST_INFO
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(_metadata())
    (folder / "WHEEL").write_text(WHEEL)
    return DIST_INFO


def build_wheel(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """PEP 517: write the pure-Python wheel and return its file name."""
    name = f"{PROJECT['name']}-{PROJECT['version']}-py3-none-any.whl"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with tempfile.TemporaryDirectory() as folder:
        wheel = source_wheel(Path(folder))
        with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as out:
            for path, data in _members(wheel):
                _put(out, path, data)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                rows.writerow((path, f"sha256={digest}", len(data)))
            rows.writerow((f"{DIST_INFO}/RECORD", "", ""))
            _put(out, f"{DIST_INFO}/RECORD", record.getvalue().encode())
    return name


def _put(out: zipfile.ZipFile, path: str, data: bytes) -> None:
    info = zipfile.ZipInfo(path, TIMESTAMP)
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(info, data)
