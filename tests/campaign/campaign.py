"""Hostile and damaged files for every reader, made from a seed, and kills of the real frameworks; ``make campaign`` runs all.

Each input is read in a process of its own with 10 s and 1 GiB more memory than it began with. It is clean when it is read or
refused with an InputError; a fault is any other exception, a signal, a time-out, or code that ran.
"""

import collections
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from running import end_when, same

from core import bounds, checkpoint, config, decoding
from core.data import _tar_index
from core.errors import InputError
from core.provenance import ROOT
from core.weights_file import read_weights_file
from transfer import results
from transfer.convert.recipe import Recipe
from transfer.datasets import coco

SECONDS, MEMORY = 10, 2**30
RAN = "code-ran.txt"  # what a file that runs code would leave
CALLS = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "io.open",
    "subprocess.Popen",
)
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
    odd = [
        None,
        True,
        -1,
        0,
        10**400,
        2**63,
        1e308,
        -1e-308,
        float("nan"),
        float("inf"),
        "",
        "\ud800",
        "a" * 5000,
        "../../x",
        "\0",
    ]
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
        torch.save(
            {"a": torch.zeros(1).expand(chance.choice([10**6, 10**12]), chance.choice([1, 10**5]))},
            buffer := io.BytesIO(),
        )
        return buffer.getvalue()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(new := io.BytesIO(), "w", chance.choice([0, 8])) as archive:
        for name in old.namelist():
            archive.writestr(name, pickled(chance) if name.endswith("data.pkl") else old.read(name))
        if kind == 5:
            archive.writestr("archive/data/9", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    return new.getvalue()


def safetensors(chance: random.Random) -> bytes:
    """Make a safetensors file with a header that lies."""
    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "__metadata__": {"recipe": json.dumps(value(chance))},
    }
    if chance.random() < 0.7:
        header["a"] = mutated(chance, header["a"])
    text = json.dumps(header).encode()
    length = chance.choice([len(text), 2**40, 2**63, len(text) - 3])
    return struct.pack("<Q", length) + text + bytes(chance.choice([8, 0, 3]))


def metadata(chance: random.Random) -> bytes:
    """Make a checkpoint of ours whose progress, config or recipe is not what it should be."""
    whole = {
        "format": checkpoint.RUN,
        "version": 1,
        "config": {"backbone": {"name": "resnet"}},
        "progress": {"step": 3, "epoch": 1},
    }
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
            member = tarfile.TarInfo(
                chance.choice(["a.jpg", "../a.jpg", "/etc/x.png", "a.cls", "n/a.jpg"]) + str(number)
            )
            member.type = chance.choice(
                [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
            )
            member.linkname = "/etc/passwd"
            member.size = 4 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"abcd"))
    data = bytearray(buffer.getvalue())
    if chance.random() < 0.5:  # a size below zero, or of any kind, with a checksum that fits
        data[124:136] = chance.choice(
            [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"\xff" * 8 + b"\xfe\0\0\0"]
        )
        data[148:156] = b" " * 8
        data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
        return bytes(data)
    return flipped(chance, bytes(data))


def picture(chance: random.Random) -> bytes:
    """Make an image that is damaged, of a format that starts programs, or says that it is huge."""
    image, kind = (
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)),
        chance.randrange(3),
    )
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
        rows = [
            f"{name}: &{name} [{', '.join([f'*{names[i - 1]}'] * 9) if i else 'x'}]" for i, name in enumerate(names)
        ]
        return "\n".join(rows).encode()
    if kind == 2:
        return "\n".join(["a0: x" * 3, *(f"a{i}: {f'${{a{i - 1}}}' * 9}" for i in range(1, 30))]).encode()
    if kind == 3:
        return b"a: " + chance.choice([b"[", b"{a: "]) * chance.choice([50, 5000])
    if kind == 4:
        base = chance.choice(["/dev/zero", "/", "http://127.0.0.1:9/x", "x.yaml", 3, None, [[]]])
        return yaml.safe_dump({"_base_": base}).encode()
    if kind == 5:
        return yaml.safe_dump(mutated(chance, {"train": {"epochs": 3, "lr": 0.1}, "data": {"name": "cifar"}})).encode(
            "utf-8", "replace"
        )
    return flipped(chance, b"name: a\ntrain: {epochs: 3}\nlist: [1, 2, {x: ${oc.env:HOME}}]\n")


def annotations(chance: random.Random) -> bytes:
    """Make COCO's annotations."""
    box = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": {"x": 1},
        "area": 4,
        "iscrowd": 0,
        "segmentation": {"counts": "1"},
    }
    whole = {
        "images": {"id": 1, "file_name": "a.jpg", "height": 8, "width": 8},
        "annotations": box,
        "categories": {"id": 1, "name": "c"},
    }
    values = mutated(chance, whole)
    return json.dumps({key: [part] for key, part in values.items()} if chance.random() < 0.8 else values).encode()


def annotation(chance: random.Random) -> bytes:
    """Make an annotation in XML."""
    rows = [f'<!ENTITY a{i} "{f"&a{i - 1};" * 9 if i else "x"}">' for i in range(12)]
    bomb = f"<!DOCTYPE a [{''.join(rows)}]><annotation>&a11;</annotation>".encode()
    plain = b"<annotation><object><name>c</name></object></annotation>"
    return chance.choice([bomb, flipped(chance, plain), b"<a>" * 100_000])


def _coco(path: Path) -> Any:
    (path.parent / "annotations").mkdir()
    path.rename(path.parent / "annotations" / "instances_val.json")
    (path.parent / "val").mkdir()
    return coco.check(path.parent)


def _tar(path: Path) -> Any:
    with path.open("rb") as file:
        return _tar_index.find(file, str(path), 0)


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
        code = os.waitstatus_to_exitcode(status)
        if code in (0, 2):
            return ""
        told = (Path(folder) / "fault").read_text() if (Path(folder) / "fault").exists() else ""
        return told or f"ended with {signal.Signals(-code).name if code < 0 else code}"


def _read(read: Callable[[Path], Any], path: Path, fault: Path) -> int:
    """Read within limits and return 0 (read), 2 (refused) or 1 (a fault, which is written down)."""
    os.chdir(path.parent)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.alarm(SECONDS)
    try:
        read(path)
        return 0
    except InputError:
        return 2
    except BaseException as error:
        fault.write_text(f"{type(error).__name__}: {str(error)[:150]!r}")
        return 1


def hostile(share: float, seed: int = 0) -> Iterator[tuple[str, int, collections.Counter]]:
    """Yield each kind with how many inputs were tried, and its faults; ``share`` is the part of a whole campaign."""
    for kind, (count, name, make, read) in KINDS.items():
        tried = max(1, round(count * share))
        found = (judge(make, name, read, hash_of(kind, seed, number)) for number in range(tried))
        yield kind, tried, collections.Counter(filter(None, found))


def hash_of(kind: str, seed: int, number: int) -> int:
    """Return the seed of one input."""
    return int.from_bytes(f"{kind}{seed}{number}".encode(), "big")


def kills(count: int, chance: random.Random, folder: Path, tool: list[str], last: str) -> list[str]:
    """Kill a real run ``count`` times, each at a random moment after its first checkpoint; return what is not as undisturbed."""
    import subprocess

    def run(place: Path) -> list[str]:
        return [sys.executable, *(part.replace("{out}", str(place)) for part in tool)]

    subprocess.run(run(folder / "whole"), check=True, capture_output=True)
    faults, done, number = [], 0, 0
    while done < count:
        place, number = folder / f"killed{number}", number + 1
        while done < count and not (place / "evaluation.json").exists():
            sign = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
            code = end_when(place / "last_checkpoint", sign, run(place), {}, wait=chance.uniform(0, 4))
            done += 1
            if code not in (0, -sign, 128 + sign):
                faults.append(f"ended with {code}")
        left = subprocess.run(run(place), capture_output=True, text=True)
        if left.returncode:
            faults.append(left.stderr.strip().splitlines()[-1][:150])
            continue
        try:
            same(folder / "whole" / last, place / last)
            ours, theirs = (
                json.loads((at / "evaluation.json").read_text())["metrics"] for at in (place, folder / "whole")
            )
            assert ours == theirs, "other metrics"
        except AssertionError as error:
            faults.append(f"not as undisturbed: {error}")
    return faults


def main() -> int:
    """Run the whole campaign and print its table; end with 1 when anything is not clean."""
    began, rows = time.monotonic(), []
    for kind, tried, faults in hostile(1.0):
        rows.append(
            (
                kind,
                tried,
                tried - faults.total(),
                "; ".join(f"{n} x {what}" for what, n in faults.most_common(3)) or "-",
            )
        )
        print(*rows[-1], sep=" | ", flush=True)
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="campaign-kills-") as scratch:
        os.environ.setdefault("DETECTRON2_DATASETS", scratch)
        for name, (count, tool, last) in runs(Path(scratch)).items():
            faults = kills(count, chance, Path(scratch) / name, tool, last)
            rows.append((f"kills of {name}", count, count - len(faults), "; ".join(sorted(set(faults))[:3]) or "-"))
            print(*rows[-1], sep=" | ", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s\n\n| input | tried | clean | faults |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    return int(any(tried != clean for _, tried, clean, _ in rows))


def runs(scratch: Path) -> dict[str, tuple[int, list[str], str]]:
    """Return the real frameworks' commands on the embedded data, with how often to kill each and their last checkpoint."""
    from core.backbones.resnet import ResNet
    from transfer.convert.convert import convert

    shape = {"name": "resnet", "depth": 18, "width": 16, "stem": "imagenet"}
    checkpoint.save_backbone(scratch / "b.pth", ResNet(ResNet.Config(**shape)).state_dict(), {"backbone": shape})
    convert(scratch / "b.pth", scratch / "d2.pkl", target="detectron2")
    convert(scratch / "b.pth", scratch / "seg.pth", target="mmseg")
    configs = ROOT / "configs" / "transfer"
    detection = next((configs / "detection").glob("mask-rcnn_r18w16-fpn_*_shapes.yaml"))
    segmentation = next((configs / "segmentation").glob("fcn_r18w16-*shapes*.py"))
    train_net = [str(ROOT / "tools/train_net.py"), "--tiny", "shapes", "--config-file", str(detection), "MODEL.WEIGHTS"]
    train_net += [str(scratch / "d2.pkl"), "SEED", "7", "OUTPUT_DIR", "{out}"]
    train_seg = [str(ROOT / "tools/train_seg.py"), str(segmentation), "--tiny", "shapes", "--seed", "7"]
    train_seg += ["--weights", str(scratch / "seg.pth"), "--work-dir", "{out}"]
    return {"detection": (20, train_net, "model_final.pth"), "segmentation": (20, train_seg, "iter_4.pth")}


if __name__ == "__main__":
    sys.exit(main())
