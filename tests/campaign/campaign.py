"""Hostile and damaged files for every reader, limits while writing, and kills of the real tools, from a seed; ``make campaign``.

Each input is read in a process of its own with 10 s of processor time and 1 GiB more memory than it began with. It is clean when
it is read or refused with an InputError; a fault is any other exception, a signal, a limit that was met, code that ran, or a file
outside the input's own folder. ``campaign.py WORD ...`` runs the rows whose names hold one of the words.
"""

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from running import end_when

from core import bounds, checkpoint, config, decoding, journal
from core.backbones.resnet import ResNet
from core.data import tar_shards
from core.errors import InputError
from core.files import sha256
from core.provenance import ROOT
from core.weights_file import read_weights_file
from pretrain.setup import make_trainer
from transfer import results
from transfer.convert import convert
from transfer.convert.recipe import Recipe
from transfer.datasets import coco
from transfer.report import assembly, export
from transfer.report import write as write_report

SECONDS, MEMORY = 10, 2**30
RAN = "code-ran.txt"  # what a file that runs code would leave
CALLS = (
    "os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "io.open", "subprocess.Popen",
)  # fmt: skip
CALLS += ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "torch._utils._rebuild_tensor_v2", "functools.partial")
Maker = Callable[[random.Random], bytes]


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Damage a whole file: bits turned, cut short, a part doubled or put elsewhere, or zeros for a part."""
    damaged, kind = bytearray(data), chance.randrange(5)
    place, length = chance.randrange(len(data)), chance.randrange(1, 64)
    if kind == 0:
        for _ in range(chance.randrange(1, 8)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del damaged[place:]
    elif kind == 2:
        damaged[place:place] = damaged[place : place + length]
    elif kind == 3:
        damaged[place : place + length] = bytes(min(length, len(damaged) - place))
    else:
        del damaged[place : place + length]
    return bytes(damaged)


def value(chance: random.Random, depth: int = 0) -> Any:
    """Make a value that a reader does not expect."""
    odd: list[Any] = [None, True, -1, 0, 10**400, 2**63, 1e308, -1e-308, float("nan"), float("inf"), "", "\ud800"]
    odd += ["a" * 5000, "../../x", "\0"]
    kind = chance.randrange(10)
    if kind < 7 or depth > 3:
        return chance.choice(odd)
    if kind == 7:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 8:
        return {str(value(chance, 9))[:20]: value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return json.loads("[" * 200 + "]" * 200)


def mutated(chance: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """Put a value where it does not belong, drop one, or add one."""
    values = json.loads(json.dumps(values))
    node, kind = values, chance.randrange(4)
    while True:
        key = chance.choice(list(node))
        if isinstance(node[key], dict) and node[key] and chance.random() < 0.7:
            node = node[key]
            continue
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[str(value(chance, 9))[:50]] = value(chance)
        else:
            node[key] = value(chance)
        return values


def pickled(chance: random.Random) -> bytes:
    """Make a pickle that calls something, names objects again and again, or asks for memory."""
    kind = chance.randrange(6)
    if kind < 3:
        module, _, name = chance.choice(CALLS).rpartition(".")
        argument = f"open({RAN!r}, 'w')" if name in ("eval", "exec") else f"touch {RAN}"
        arguments = chance.choice([(argument,), (argument, "w"), (argument, 1, ())])
        body = pickle.dumps(arguments, 2)[2:-1]
        call = f"c{module}\n{name}\n".encode() + body + chance.choice([b"R", b"\x81", b"b", b"\x85R", b""])
        return b"\x80\x02" + b"}U\x01a" + call + b"s."
    if kind == 3:
        nested: Any = chance.choice([(), [], {}, frozenset()])
        for _ in range(chance.randrange(30, 80)):
            nested = chance.choice([(nested, nested), [nested, nested], {"a": nested, "b": nested}])
        return pickle.dumps({"model": nested}, chance.randrange(2, 5))
    if kind == 4:
        operation = chance.choice([b"r", b"\x8a", b"\x8e", b"\x8d", b"X", b"T", b"\x95", b"j"])
        size = chance.choice([2**31 - 1, 2**32 - 1, 2**62])
        return b"\x80\x04}" + operation + struct.pack("<Q", size)[: chance.choice([4, 8])] + b"a."
    return chance.choice([b"(", b"]", b"N", b"}2", b")"]) * chance.choice([1000, 100_000, 600_000]) + b"."


def weights(chance: random.Random) -> bytes:
    """Make a checkpoint: damaged, with a hostile pickle, compressed, or of tensors that are larger than it."""
    state = {"conv1.weight": torch.zeros(4, 3, 7, 7), "fc.bias": torch.arange(5.0)}
    content = {"state_dict": state, "meta": {"epoch": 1}, "recipe": Recipe().to_dict()}
    kind, buffer = chance.randrange(6), io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=kind != 1)
    if kind < 3:
        return flipped(chance, buffer.getvalue())
    if kind == 3:
        huge = torch.zeros(1).expand(chance.choice([10**6, 10**12]), chance.choice([1, 10**5]))
        torch.save({"a": huge}, buffer := io.BytesIO())
        return buffer.getvalue()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(new := io.BytesIO(), "w", chance.choice([0, 8])) as archive:
        for name in old.namelist():
            archive.writestr(name, pickled(chance) if name.endswith("data.pkl") else old.read(name))
        if kind == 5:
            archive.writestr("archive/data/9", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    return new.getvalue()


def safetensors(chance: random.Random) -> bytes:
    """Make a safetensors file with a header that lies."""
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header["__metadata__"] = {"recipe": json.dumps(value(chance))}
    if chance.random() < 0.7:
        header["a"] = mutated(chance, header["a"])
    text = json.dumps(header).encode()
    length = chance.choice([len(text), 2**40, 2**63, len(text) - 3])
    return struct.pack("<Q", length) + text + bytes(chance.choice([8, 0, 3]))


def metadata(chance: random.Random) -> bytes:
    """Make a checkpoint of ours whose progress, config or recipe is not what it should be."""
    whole = {"format": checkpoint.RUN, "version": 1, "config": {"backbone": {"name": "resnet"}}}
    whole["progress"] = {"step": 3, "epoch": 1}
    torch.save({**mutated(chance, whole), "method": {}, "recipe": value(chance)}, buffer := io.BytesIO())
    return buffer.getvalue()


def recipe(chance: random.Random) -> bytes:
    """Make the recipe of a converted file."""
    return json.dumps(mutated(chance, Recipe().to_dict())).encode()


def result(chance: random.Random) -> bytes:
    """Make a result file."""
    whole = {
        "schema_version": 1, "benchmark": "b", "trial": 0, "seed": 1, "metrics": {"bbox/AP": 1.0, "bbox/AP50": 2.0},
        "checkpoint": {"name": "A", "sha256": "a" * 64, "method": "moco", "branches": ["mixmask"], "pretrain": {"steps": 10}},
        "protocol": {"title": "t", "headline": "bbox/AP", "metrics": ["bbox/AP"], "hash": "0" * 64},
        "cost": {"seconds": 1.0, "peak_memory_mib": 2.0, "device": "cpu"}, "recipe": {"effective": {"lr": 0.1}},
    }  # fmt: skip
    text = json.dumps(mutated(chance, whole)).encode()
    return flipped(chance, text) if chance.random() < 0.2 else text


def tar(chance: random.Random) -> bytes:
    """Make a tar with odd names, links, devices and sizes."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as archive:
        for number in range(chance.randrange(1, 5)):
            names = ["a.jpg", "../a.jpg", "/etc/x.png", "a.cls", "n/a.jpg"]
            member = tarfile.TarInfo(chance.choice(names) + str(number))
            kinds = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
            member.type = chance.choice(kinds)
            member.linkname = "/etc/passwd"
            member.size = 4 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"abcd"))
    data = bytearray(buffer.getvalue())
    if chance.random() < 0.5:  # a size below zero, or of any kind, with a checksum that fits
        sizes = [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"\xff" * 8 + b"\xfe\0\0\0"]
        data[124:136] = chance.choice(sizes)
        data[148:156] = b" " * 8
        data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
        return bytes(data)
    return flipped(chance, bytes(data))


def picture(chance: random.Random) -> bytes:
    """Make an image that is damaged, of a format that starts programs, or says that it is huge."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    image, kind = Image.fromarray(pixels), chance.randrange(3)
    image.save(buffer := io.BytesIO(), chance.choice(["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM"]))
    if kind == 0:
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch " + RAN.encode() + b") (w) file\n%%EOF\n"
    data = buffer.getvalue()
    if kind == 1 and data[:4] == b"\x89PNG":
        return data[:16] + struct.pack(">II", chance.choice([10**5, 2**31 - 1]), 10**5) + data[24:]
    return flipped(chance, data)


def text_of_yaml(chance: random.Random) -> bytes:
    """Make a config: tags that call, anchors of anchors, references, depth, or any other text."""
    kind = chance.randrange(7)
    if kind == 0:
        return f"a: !!python/object/apply:os.system ['touch {RAN}']\n".encode()
    if kind == 1:
        names = [f"a{number}" for number in range(chance.randrange(8, 40))]
        parts = [", ".join([f"*{names[i - 1]}"] * 9) if i else "x" for i in range(len(names))]
        return "\n".join(f"{name}: &{name} [{part}]" for name, part in zip(names, parts, strict=True)).encode()
    if kind == 2:
        return "\n".join(["a0: x" * 3, *(f"a{i}: {f'${{a{i - 1}}}' * 9}" for i in range(1, 30))]).encode()
    if kind == 3:
        return b"a: " + chance.choice([b"[", b"{a: "]) * chance.choice([50, 5000])
    if kind == 4:
        base = chance.choice(["/dev/zero", "/", "http://127.0.0.1:9/x", "x.yaml", 3, None, [[]]])
        return yaml.safe_dump({"_base_": base}).encode()
    if kind == 5:
        values = mutated(chance, {"train": {"epochs": 3, "lr": 0.1}, "data": {"name": "cifar"}})
        return yaml.safe_dump(values).encode("utf-8", "replace")
    return flipped(chance, b"name: a\ntrain: {epochs: 3}\nlist: [1, 2, {x: ${oc.env:HOME}}]\n")


def annotations(chance: random.Random) -> bytes:
    """Make COCO's annotations."""
    box = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": {"x": 1}, "area": 4, "iscrowd": 0,
        "segmentation": {"counts": "1"},
    }  # fmt: skip
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}
    whole = {"images": image, "annotations": box, "categories": {"id": 1, "name": "c"}}
    values = mutated(chance, whole)
    return json.dumps({key: [part] for key, part in values.items()} if chance.random() < 0.8 else values).encode()


def annotation(chance: random.Random) -> bytes:
    """Make an annotation in XML."""
    rows = [f'<!ENTITY a{i} "{f"&a{i - 1};" * 9 if i else "x"}">' for i in range(12)]
    bomb = f"<!DOCTYPE a [{''.join(rows)}]><annotation>&a11;</annotation>".encode()
    plain = b"<annotation><object><name>c</name></object></annotation>"
    return chance.choice([bomb, flipped(chance, plain), b"<a>" * 100_000])


def matlab(chance: random.Random) -> bytes:
    """Make a file of MATLAB: damaged, or with arrays, structures and cells that say they are huge, deep or of many parts."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)

    def array(kind: int, dims: tuple[int, ...], *content: bytes, name: bytes = b"") -> bytes:
        flags = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(dims)}i", *dims))
        return element(14, flags + element(1, name) + b"".join(content))

    number, inside, kind = array(9, (1, 1), element(2, b"\1")), b"", chance.randrange(5)
    sizes = tuple(chance.choice([1, 2**10, 2**24, 2**31 - 1, -1]) for _ in range(chance.choice([1, 2, 3, 40])))
    names = element(5, struct.pack("<i", chance.choice([1, 13, 32, 0, -1])))
    names += element(1, b"Segmentation\0".ljust(32) * 9)
    if kind < 3:
        of = chance.choice([1, 2, 4, chance.randrange(1, 19)])
        inside = array(of, sizes, *[names] * (of in (2, 3)), *[number] * chance.choice([1, 9, 10**4]), name=b"GTcls")
    elif kind == 3:
        inside = array(2, (1, 1), names, element(14, bytes(chance.choice([10**6, 3 * 10**7]))), name=b"GTcls")
    for _ in range(0 if kind < 4 else chance.choice([100, 3000])):
        inside = array(chance.choice([1, 2]), (1, 1), *[names] * chance.randrange(2), inside, name=b"GTcls")
    inside = chance.choice([inside, element(15, zlib.compress(inside))]) * chance.choice([1, 1, 20])
    data = bytes(124) + b"\0\1IM" + inside
    return flipped(chance, data) if chance.random() < 0.3 else data[: 10**7]


GOOD = {
    "schema_version": 1, "benchmark": "b", "trial": 0, "metrics": {"bbox/AP": 1.0},
    "checkpoint": {"name": "good", "sha256": "a" * 64, "method": "moco", "branches": ["mscn"], "pretrain": {}},
    "protocol": {"title": "t", "headline": "bbox/AP", "metrics": ["bbox/AP"], "hash": "0" * 64},
}  # fmt: skip


def folder_of_results(chance: random.Random) -> bytes:
    """Make a packed folder of two good results and a hostile one, with what else a report reads of it."""
    curve = {"curves": [{"name": "a", "x": "b", "y": "c", "points": [[0, 1], [1, 2]]}]}
    curve = {"curves": [mutated(chance, curve["curves"][0])]}
    line = mutated(chance, {"step": 1, "loss": 0.5, "knn_top1": 3})
    summary = mutated(
        chance, {"status": "finished", "seconds": 3.0, "images_per_second": 2.0, "forwards_per_step": {"query": 2}}
    )
    described = {"name": "s", "baseline": "good", "items": []}
    described["checkpoints"] = [{"label": "bad", "name": "bad", "runs": ["pre"]}]
    files = {f"good{n}/result.json": json.dumps(GOOD | {"trial": n, "metrics": {"bbox/AP": 1.0 + n}}) for n in range(2)}
    files |= {
        "bad/result.json": result(chance).decode(errors="replace"),
        "bad/run/curves.json": json.dumps(curve),
        "bad/run/journal.jsonl": json.dumps(line) + "\n" + json.dumps(value(chance)),
        "bad/failure.json": json.dumps(value(chance)),
        "pre/summary.json": json.dumps(summary),
        "pre/config.yaml": text_of_yaml(chance).decode(errors="replace"),
        "pre/journal.jsonl": json.dumps(line),
        "suite.json": json.dumps(
            mutated(chance, {"items": {}}) | described if chance.random() < 0.5 else value(chance)
        ),
    }
    return "".join(
        json.dumps({"file": name, "text": text.encode("utf-8", "replace").decode()}) + "\n"
        for name, text in files.items()
    ).encode()


def _report(path: Path) -> None:
    """Write every form of the report, with hostile pictures and detections; the good results must be in it."""
    folder = path.parent / "results"
    results.unpack(path, folder)
    chance = random.Random(len(path.read_bytes()))
    for place, data in {
        "bad/run/predictions/x.png": picture(chance),
        "pre/views.png": picture(chance),
        "bad/run/predictions/classes.json": json.dumps(value(chance)).encode(),
        "bad/run/coco_instances_results.json": annotations(chance),
    }.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
    try:
        report = assembly.build(folder)
        written = [*write_report(report, path.parent / "report"), *export.everything(report, path.parent / "export")]
    except InputError as error:
        raise RuntimeError(f"no report: {error}") from error
    if "good" not in (path.parent / "report" / "report.md").read_text() or not all(file.is_file() for file in written):
        raise RuntimeError("the good results are not in the report")


SHAPE = {"name": "resnet", "depth": 18, "width": 8, "stem": "imagenet"}


def source(chance: random.Random) -> bytes:
    """Make a checkpoint whose backbone is whole and whose config, progress, recipe and metadata are not."""
    network = ResNet(ResNet.Config(**SHAPE)).state_dict()
    whole = {
        "format": checkpoint.RUN, "version": 1, "progress": {"step": 3, "epoch": 1, "damaged": [], "values": {"loss": 1.0}},
        "config": {"backbone": SHAPE, "method": {"name": "moco"}, "branches": {"a": {"name": "mscn"}}},
    }  # fmt: skip
    state = mutated(chance, whole) | {
        "method": {f"query_encoder.backbone.{name}": tensor for name, tensor in network.items()}
    }
    if chance.random() < 0.4:  # of another tool
        state = {"state_dict": network, **{key: value(chance) for key in ("epoch", "args", "arch", "recipe", "meta")}}
    torch.save(state, buffer := io.BytesIO())
    return buffer.getvalue()


def _convert(path: Path) -> None:
    """Convert, and see that there is a file that can be read, or none at all."""
    output = path.parent / "out" / "x.pth"
    try:
        convert.convert(path, output, target="classification")
        read_weights_file(output)
    finally:
        left = list(output.parent.iterdir()) if output.parent.exists() else []
        if sys.exc_info()[0] is not None and left:
            raise RuntimeError(f"left {left[0].name}")


def _coco(path: Path) -> Any:
    (path.parent / "annotations").mkdir()
    path.rename(path.parent / "annotations" / "instances_val.json")
    (path.parent / "val").mkdir()
    return coco.check(path.parent)


def _tar(path: Path) -> Any:
    with path.open("rb") as file:
        return tar_shards.find(file, str(path), 0)


def _xml(path: Path) -> Any:
    try:
        return bounds.xml(path.read_bytes(), path)
    except SyntaxError as error:  # the readers of annotations say which file it is
        raise InputError(str(error)) from error


# kind -> inputs of a whole campaign, file name, what makes one, what reads it
KINDS: dict[str, tuple[int, str, Maker, Callable[[Path], Any]]] = {
    "weights (torch.save)": (300, "x.pth", weights, read_weights_file),
    "pickles": (250, "x.pkl", pickled, read_weights_file),
    "safetensors": (100, "x.safetensors", safetensors, read_weights_file),
    "checkpoints' metadata": (100, "x.pth", metadata, checkpoint.load),
    "recipes": (150, "x.json", recipe, lambda path: Recipe.from_dict(bounds.json_value(path, "a recipe"), path)),
    "results": (250, "result.json", result, results.read),
    "tars": (100, "x.tar", tar, _tar),
    "images": (150, "x.png", picture, lambda path: decoding.decode(path.read_bytes(), path)),
    "YAML": (150, "x.yaml", text_of_yaml, config.load),
    "COCO annotations": (100, "x.json", annotations, _coco),
    "XML annotations": (50, "x.xml", annotation, _xml),
    "MATLAB's files": (60, "x.mat", matlab, lambda path: bounds.mat(path, "GTcls", "Segmentation")),
    "reports, in every form and export": (100, "x.jsonl", folder_of_results, _report),
    "conversions": (60, "x.pth", source, _convert),
}


def judge(make: Maker, name: str, read: Callable[[Path], Any], seed: int) -> str:
    """Make one input and read it in a process of its own; return "" when it is clean, else the fault."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        place = Path(folder) / "in"
        place.mkdir()
        (place / name).write_bytes(make(random.Random(seed)))
        child = os.fork()
        if child == 0:
            os._exit(_read(read, place / name, Path(folder) / "fault"))
        _, status = os.waitpid(child, 0)
        if (place / RAN).exists() or Path(RAN).exists():
            return "code ran"
        if outside := {path.name for path in Path(folder).iterdir()} - {"in", "fault"}:
            return f"wrote {min(outside)} outside its folder"
        code = os.waitstatus_to_exitcode(status)
        if code in (0, 2):
            return ""
        told = (Path(folder) / "fault").read_text() if (Path(folder) / "fault").exists() else ""
        return told or f"ended with {signal.Signals(-code).name if code < 0 else code}"


def _read(read: Callable[[Path], Any], path: Path, fault: Path) -> int:
    """Read within limits and return 0 (read), 2 (refused) or 1 (a fault, which is written down)."""
    os.chdir(path.parent)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # less what is only set apart
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    signal.alarm(12 * SECONDS)  # other work may hold the processor
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        read(path)
        return 0
    except InputError:
        return 2
    except BaseException as error:
        fault.write_text(f"{type(error).__name__}: {str(error)[:150]!r}")
        return 1


def hostile(kind: str, seed: int = 0) -> Iterator[str]:
    """Yield "" or the fault of each input of a kind."""
    count, name, make, read = KINDS[kind]
    for number in range(count):
        yield judge(make, name, read, hash_of(kind, seed, number))


def hash_of(kind: str, seed: int, number: int) -> int:
    """Return the seed of one input."""
    return int.from_bytes(f"{kind}{seed}{number}".encode(), "big")


def in_child(work: Callable[[], Any], limit: int | None = None) -> str:
    """Do work in a process of its own, whose files may have ``limit`` bytes; return "" or the fault (InputErrors are none)."""
    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            code = 0
            try:
                sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                work()
            except InputError:
                code = 2
            except BaseException as error:
                code = 1
                with contextlib.suppress(OSError):
                    told.write(f"{type(error).__name__}: {str(error)[:150]!r}")
                    told.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        told.seek(0)
        return "" if code in (0, 2) else told.read() or f"ended with {code}"


SMALL = """
backbone: {name: resnet, depth: 18, width: 4}
data: {name: shapes, count: 24, size: 32}
views: {size: 32}
method: {name: moco, queue: 32, dim: 8}
branches: {filled: {name: mixmask, mask: {name: block, cells: 4, ratio: 0.5}}}
train: {epochs: EPOCHS, batch_size: 8, workers: 0, log_every: 1, keep_every: 1}
optimizer: {lr: 0.01}
"""


def _go_on(settings: Path, folder: Path) -> None:
    make_trainer(settings, [f"run.folder={folder}"]).run()


def _begun(scratch: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Pre-train for four epochs; return the config, the folder as it was after two of them, and what the end is."""
    small = scratch / "small.yaml"
    small.write_text(SMALL.replace("EPOCHS", "4"))

    def stop() -> None:
        trainer = make_trainer(small, [f"run.folder={scratch / 'begun'}"])
        step = trainer._step
        trainer._step = lambda batch: (trainer.step == 6 and trainer._ask_to_stop(signal.SIGTERM), step(batch))[1]
        trainer.run()

    for work in (functools.partial(_go_on, small, scratch / "whole"), stop):
        assert (fault := in_child(work)) == "", fault
    return small, scratch / "begun", checkpoint.load(scratch / "whole" / "checkpoints" / "last.pth")["method"]


def damaged(count: int, chance: random.Random, scratch: Path) -> Iterator[str]:
    """Damage a file of a stopped pre-training and go on: the end is that of the undisturbed run, or a file is named."""
    small, begun, end = _begun(scratch)
    names = [
        str(path.relative_to(begun)) for path in sorted(begun.rglob("*")) if path.is_file() and path.suffix != ".lock"
    ]
    for number in range(count):
        place, name = scratch / f"damaged{number}", names[number % len(names)]
        shutil.copytree(begun, place)
        (place / name).write_bytes(flipped(chance, (place / name).read_bytes()))
        fault = in_child(functools.partial(_go_on, small, place))
        last = place / "checkpoints" / "last.pth"
        summary = place / "summary.json"
        if not fault and summary.exists() and json.loads(summary.read_text())["steps"] == 12:
            made = checkpoint.load(last)["method"]
            if not all(torch.equal(value, made[key]) for key, value in end.items()):
                fault = f"{name}: not as undisturbed"
        yield fault
        shutil.rmtree(place)


def limited(count: int, chance: random.Random, scratch: Path) -> Iterator[str]:
    """Meet a limit while a checkpoint, a journal, a conversion or a report is written: the old files stay, and it can go on."""
    small, begun, end = _begun(scratch)
    converted = scratch / "source.pth"
    converted.write_bytes(source(random.Random(0)))
    for number in range(count):
        place, limit = scratch / f"limited{number}", int(10 ** chance.uniform(1.5, 5.5))
        shutil.copytree(begun, place)
        before = sha256(place / "checkpoints" / "epoch_0001.pth")
        if number % 4 == 3:
            work = functools.partial(convert.convert, converted, place / "out.pth", target="classification")
        else:
            work = functools.partial(_go_on, small, place)
        fault = in_child(work, limit)
        if not fault and number % 4 == 3 and (place / "out.pth").exists():
            read_weights_file(place / "out.pth")
        if not fault and number % 4 != 3:
            fault = in_child(work)
            made = checkpoint.load(place / "checkpoints" / "last.pth")["method"]
            fault = fault or ("" if all(torch.equal(v, made[k]) for k, v in end.items()) else "not as undisturbed")
            fault = fault or ("" if journal.read(place / "journal.jsonl")[-1]["step"] == 12 else "no whole journal")
        if sha256(place / "checkpoints" / "epoch_0001.pth") != before:
            fault = "an old checkpoint was changed"
        if list(place.rglob(".*.tmp")):
            fault = "a temporary file was left"
        yield fault
        shutil.rmtree(place)


class Victim(NamedTuple):
    """A real tool: how often it is killed, its command, what tells that it has begun and that it is done, and what it made."""

    kills: int
    tool: list[str]
    begun: str
    done: str
    made: Callable[[Path], Any]


def kills(victim: Victim, chance: random.Random, folder: Path) -> Iterator[str]:
    """Kill a real run, each time at a random moment after its first checkpoint; yield "" or how it is not as undisturbed."""

    def run(place: Path) -> list[str]:
        return [sys.executable, *(part.replace("{out}", str(place)) for part in victim.tool)]

    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    subprocess.run(run(folder / "whole"), check=True, capture_output=True)
    wanted, done, number = victim.made(folder / "whole"), 0, 0
    while done < victim.kills:
        place, number, struck, faults = folder / f"killed{number}", number + 1, 0, []
        while done + struck < victim.kills and not list(place.glob(victim.done)):
            sign = chance.choice(signals)
            first = not (place / victim.begun).exists()  # else it imports for some seconds before it goes on
            code = end_when(place / victim.begun, sign, run(place), {}, wait=chance.uniform(0, 4 if first else 10))
            struck += 1
            if code not in (0, -sign, 128 + sign):
                faults.append(f"{sign.name} ended it with {code}")
        left = subprocess.run(run(place), capture_output=True, text=True)
        if left.returncode:
            faults.append((left.stderr.strip().splitlines() or [f"ended with {left.returncode}"])[-1][:150])
        elif victim.made(place) != wanted:
            faults.append("not as undisturbed")
        if found := list(place.rglob(".*.tmp")):
            faults.append(f"left {found[0].name}")
        done += struck
        yield from [*faults[:struck], *[""] * (struck - len(faults))]


@contextlib.contextmanager
def mounted(place: Path, *how: str) -> Iterator[None]:
    """Mount something at a folder, which only root may; raise OSError or CalledProcessError otherwise."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *how, str(place)], check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


TMPFS = ("-t", "tmpfs", "-o", "size=1200m", "tmpfs")  # a suite asks for 1 GiB free


def no_mounts(place: Path) -> str:
    """Return why this user may mount nothing, or an empty text."""
    try:
        with mounted(place, *TMPFS):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return " ".join(f"skipped: {getattr(error, 'stderr', '') or error}".split())


def full_and_read_only(victim: Victim, _: random.Random, folder: Path) -> Iterator[str]:
    """Fill a real disk before a tool and after its first checkpoint, and make it read-only; yield "" or what went wrong.

    Each time it ends with one line and 1, the checkpoints that are there are whole, and at last the same command goes on.
    """
    disk, fixed = folder / "disk", folder / "fixed"
    folder.mkdir(exist_ok=True)
    ballast, place = disk / "ballast", disk / "run"

    def run(out: Path, full: Path | None, codes: tuple[int, ...]) -> str:
        command = [sys.executable, *(part.replace("{out}", str(out)) for part in victim.tool)]
        with open(folder / "stderr", "w+") as told, open(folder / "stdout", "w") as said:
            process = subprocess.Popen(command, stdout=said, stderr=told)
            while process.poll() is None:
                if full is not None and full.exists():
                    with contextlib.suppress(OSError), open(ballast, "ab", 0) as file:
                        while file.write(bytes(2**20)) == 2**20:
                            pass
                time.sleep(0.02)
            told.seek(0)
            lines = told.read().splitlines() or [""]
        for path in [*out.glob("*.pth"), *out.glob("checkpoints/*.pth")]:
            try:
                bounds.check_zip(path)
            except InputError as error:
                return f"torn: {error}"
        if process.returncode not in codes or any(line.startswith(("fault: ", "Traceback")) for line in lines):
            return f"ended with {process.returncode}: {lines[-1][:150]}"
        return "" if process.returncode == 0 or lines[-1].startswith("error: ") else f"it said {lines[-1][:150]}"

    with mounted(disk, *TMPFS):
        yield run(place, disk, (1,))
        ballast.unlink()
        yield run(place, place / victim.begun, (0, 1))
        ballast.unlink(missing_ok=True)
        with mounted(fixed, "--bind", str(disk)):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(fixed)], check=True)
            yield run(fixed / "run", None, (1,))
        fault = run(place, None, (0,)) or run(folder / "whole", None, (0,))
        yield fault or ("" if victim.made(place) == victim.made(folder / "whole") else "not as undisturbed")


def _evaluated(last: str) -> Callable[[Path], Any]:
    def made(place: Path) -> Any:
        parts = read_weights_file(place / last)
        kept = ("model", "state_dict", "optimizer", "scheduler", "param_schedulers", "iteration")
        return _digest({key: parts.get(key) for key in kept}), _measured(place)

    return made


def _measured(place: Path) -> Any:
    return json.loads((place / "evaluation.json").read_text())["metrics"]


def _trained(place: Path) -> Any:
    parts = checkpoint.load(place / "checkpoints" / "last.pth")
    steps = [line["step"] for line in journal.read(place / "journal.jsonl")]
    return _digest({key: parts[key] for key in ("method", "optimizer", "progress")}), steps


def _suite(place: Path) -> Any:
    return {path.parent.name: results.read(path).metrics for path in sorted(place.glob("*/result.json"))}


def _digest(value: Any) -> Any:
    """Return plain values that are equal where two checkpoints are equal bit for bit."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value = torch.as_tensor(value)
        plain = value.contiguous().view(torch.uint8 if value.ndim else value.dtype)
        return hashlib.sha256(plain.numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {key: _digest(part) for key, part in value.items()}
    return [_digest(part) for part in value] if isinstance(value, list | tuple) else value


def main() -> int:
    """Run the whole campaign, or the rows that are named, and print the table; end with 1 when anything is not clean."""
    began, rows = time.monotonic(), []

    def state() -> str:
        asked = ["git", "--no-optional-locks", "status", "--porcelain"]
        return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout

    before = state()

    def tell(name: str, faults: list[str], why: str = "-") -> None:
        told = collections.Counter(filter(None, faults))
        shown = "; ".join(f"{n} x {what}" for what, n in told.most_common(3)).replace("|", "/") or why
        rows.append((name, len(faults), len(faults) - told.total(), shown))
        print(*rows[-1], f"{time.monotonic() - began:.0f} s", sep=" | ", flush=True)

    def asked(name: str) -> bool:
        return not sys.argv[1:] or any(word in name for word in sys.argv[1:])

    for kind in filter(asked, KINDS):
        tell(kind, list(hostile(kind)))
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as place:
        scratch = Path(place)
        os.environ.setdefault("DETECTRON2_DATASETS", place)
        for name, (count, work) in {
            "damaged files of a pre-training": (44, damaged),
            "limits on files while writing": (40, limited),
        }.items():
            if asked(name):
                (scratch / name[:4]).mkdir()
                tell(name, list(work(count, random.Random(2), scratch / name[:4])))
        rooms = {"kills of": kills, "full and read-only disks of": full_and_read_only}
        pairs = [(f"{how} {what}", what, work) for what in VICTIMS for how, work in rooms.items()]
        found = victims(scratch) if any(asked(name) for name, _, _ in pairs) else {}
        for name, what, work in pairs:
            if work is full_and_read_only and asked(name) and (why := no_mounts(scratch / "none")):
                tell(name, [], why)
            elif asked(name) and (work is not kills or found[what].kills):
                tell(name, list(work(found[what], random.Random(1), scratch / what)))
    changed = state() != before or Path(RAN).exists()
    tell("the checkout and the working directory afterwards", ["changed" if changed else ""])
    print("\n| input | tried | clean | faults |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    return int(any(tried != clean for _, tried, clean, _ in rows))


VICTIMS = ("pre-training", "detection", "segmentation", "suites", "conversions", "classification", "reports")
SUITE = """
name: campaign
trials: 2
threads: 1
benchmarks: [shapes_knn]
checkpoints:
  drawn: {random: {backbone: {name: resnet, depth: 18, width: 4, stem: imagenet}, seed: 0}}
  made: {pretrain: {config: SMALL}}
"""


def victims(scratch: Path) -> dict[str, Victim]:
    """Return the real tools, on the embedded data."""
    shape = {"name": "resnet", "depth": 18, "width": 16, "stem": "imagenet"}
    checkpoint.save_backbone(scratch / "b.pth", ResNet(ResNet.Config(**shape)).state_dict(), {"backbone": shape})
    convert.convert(scratch / "b.pth", scratch / "d2.pkl", target="detectron2")
    convert.convert(scratch / "b.pth", scratch / "seg.pth", target="mmseg")
    configs = ROOT / "configs" / "transfer"
    detection = next((configs / "detection").glob("mask-rcnn_r18w16-fpn_*_shapes.yaml"))
    segmentation = next((configs / "segmentation").glob("fcn_r18w16-*shapes*.py"))
    train_net = [str(ROOT / "tools/train_net.py"), "--tiny", "shapes", "--config-file", str(detection), "MODEL.WEIGHTS"]
    train_net += [str(scratch / "d2.pkl"), "SEED", "7", "OUTPUT_DIR", "{out}"]
    train_seg = [str(ROOT / "tools/train_seg.py"), str(segmentation), "--tiny", "shapes", "--seed", "7"]
    train_seg += ["--weights", str(scratch / "seg.pth"), "--work-dir", "{out}"]
    (scratch / "pre.yaml").write_text(SMALL.replace("EPOCHS", "16").replace("keep_every: 1", "keep_every: 4"))
    pretrain = [str(ROOT / "pretrain/run.py"), str(scratch / "pre.yaml"), "--out", "{out}"]
    (scratch / "suite.yaml").write_text(SUITE.replace("SMALL", str(scratch / "pre.yaml")))
    run_suite = [str(ROOT / "tools/run_suite.py"), str(scratch / "suite.yaml"), "--out", "{out}"]
    convert_it = [
        str(ROOT / "tools/convert_to_d2.py"), str(scratch / "b.pth"), "{out}/x.pkl", "--json", "{out}/proof.json",
    ]  # fmt: skip
    convert.convert(scratch / "b.pth", scratch / "c.pth", target="classification")
    classifier = [str(ROOT / "tools/train_classifier.py"), str(configs / "classification/finetune-small_shapes.yaml")]
    classifier += ["--weights", str(scratch / "c.pth"), "--work-dir", "{out}", "--tiny"]
    for number in range(2):
        (scratch / f"results/{number}").mkdir(parents=True)
        (scratch / f"results/{number}/result.json").write_text(json.dumps(GOOD | {"trial": number}))
    report_it = [str(ROOT / "tools/write_report.py"), str(scratch / "results"), "--out", "{out}"]
    found = (
        Victim(16, pretrain, "checkpoints/last.pth", "summary.json", _trained),
        Victim(10, train_net, "last_checkpoint", "evaluation.json", _evaluated("model_final.pth")),
        Victim(10, train_seg, "last_checkpoint", "evaluation.json", _evaluated("iter_4.pth")),
        Victim(8, run_suite, "suite.json", "made*1*/result.json", _suite),
        Victim(0, convert_it, "x.pkl", "x.pkl", lambda place: _digest(read_weights_file(place / "x.pkl"))),
        Victim(0, classifier, "last_checkpoint", "evaluation.json", _measured),
        Victim(0, report_it, "report.html", "report.html", lambda place: (place / "report.md").read_text()),
    )
    return dict(zip(VICTIMS, found, strict=True))


if __name__ == "__main__":
    sys.exit(main())
