"""Make results folders for tests: the files that a suite leaves, with invented numbers."""

import json
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

BASELINE = "MoCo v2 + MSCN"
NAMES = {
    "Random initialisation": ("random", [], 2.0),
    BASELINE: ("moco", ["mscn"], 7.5),
    "MoCo v2 + MixMask": ("moco", ["mixmask"], 9.8),
}
CLASSIFICATION = ("classification", "Shapes kNN", ["knn200/top1", "knn20/top1", "knn20-0.1/top1"])
METRICS = {
    "shapes_detection": ("detectron2", "Shapes detection", ["bbox/AP", "bbox/AP50", "bbox/AP-cross", "segm/AP"]),
    "shapes_segmentation": ("mmseg", "Shapes segmentation", ["seg/mIoU", "seg/aAcc", "seg/IoU-cross"]),
}


def result(name="A", benchmark="shapes_detection", trial=0, metrics=None, **changes):
    """Return the values of one result file."""
    framework, title, known = METRICS.get(benchmark, ("own", benchmark, list(metrics or {"score": 1.0})))
    stated = [metric for metric in known if "-" not in metric.partition("/")[2]]  # a protocol names no classes
    method, branches, _ = NAMES.get(name, ("moco", [], 0.0))
    return {
        "schema_version": 1,
        "benchmark": benchmark,
        "protocol": {"name": benchmark, "hash": "a" * 64, "title": title, "headline": known[0], "metrics": stated}
        | {"config": "configs/x.yaml", "train": "shapes_train", "test": "shapes_val"},
        "framework": framework,
        "checkpoint": {"name": name, "sha256": name.encode().hex().ljust(64, "0"), "method": method}
        | {
            "branches": branches,
            "pretrain": {"method": method, "branches": branches, "dataset": "shapes", "epochs": 12},
        },
        "trial": trial,
        "seed": 1000,
        "metrics": metrics or dict.fromkeys(known, 1.0),
        "cost": {"seconds": 61.5, "peak_memory_mib": 900.0, "device": "cpu"},
        "recipe": {"effective": {"batch": 4, "lr": 0.02}, "published": {"batch": 4, "lr": 0.02}},
        "tensors_checked": 100,
        "environment": {"python": "3.11.7", "cores": 2, "packages": {"torch": "2.14.1"}, "git_commit": "c0ffee"},
        "command": f"python tools/run_benchmark.py x.pth --benchmark {benchmark} --trial {trial} --out y",
        "started": "2026-11-23T10:00:00+00:00",
        "finished": "2026-11-23T10:01:00+00:00",
        "status": "finished",
    } | changes


def write(folder: Path, values, name="result.json") -> Path:
    """Write one result file into its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder / name


def suite(folder: Path, trials=3, pictures=False, seed=0, seeds=False, curves=False, knn=False, title="demo"):
    """Make the results of a whole suite: three checkpoints, two benchmarks, journals; more if asked for.

    ``seeds`` gives every trial its own, which moves all checkpoints alike; ``curves`` adds precision and recall;
    ``knn`` a classification benchmark, which has neither journal nor pictures.
    """
    generator = random.Random(seed)
    checkpoints, items = [], []
    benchmarks = METRICS | ({"shapes_knn": CLASSIFICATION} if knn else {})
    for label, (name, (method, branches, level)) in zip("rmx", NAMES.items(), strict=True):
        run = f"checkpoints/{label}"
        kind = "random" if method == "random" else "pretrain"
        checkpoints.append({"label": label, "name": name, "method": "", "branches": [], "kind": kind, "run": run})
        if kind == "pretrain":
            _pretrain(folder / run, level, len(branches), generator, pictures)
        for benchmark, (framework, title_of, metrics) in benchmarks.items():
            for trial in range(trials):
                place = f"{label}--{benchmark}--trial{trial}--00000000"
                alike = 16 * (trial * 7 % 5) / 5 if seeds else 0.0
                values = {m: level * (1 + i) + alike + generator.gauss(0, 0.25) for i, m in enumerate(metrics)}
                made = result(name, benchmark, trial, values) | {"framework": framework}
                made["protocol"] |= {"title": title_of}
                write(folder / place, made | ({"seed": 1000 * (trial + 1)} if seeds else {}))
                if framework == "classification":
                    items.append(_item(name, benchmark, trial, place))
                    continue
                _journal(folder / place / "run" / "journal.jsonl", 150, 2.0, 8 / (level + 8), generator)
                if curves and framework == "detectron2":
                    _curves(folder / place / "run" / "curves.json", level)
                if pictures and trial == 0:
                    _predictions(folder / place / "run" / "predictions", level, generator)
                items.append(_item(name, benchmark, trial, place))
    manifest = {"name": title, "baseline": BASELINE, "checkpoints": checkpoints, "items": items}
    manifest["benchmarks"] = {label: title for label, (_, title, _) in benchmarks.items()}
    (folder / "suite.json").write_text(json.dumps(manifest))
    return folder


def _item(name, benchmark, trial, place):
    return {"checkpoint": name, "benchmark": benchmark, "trial": trial, "folder": place, "command": []}


def _curves(path, level):
    recall = [index / 100 for index in range(101)]
    points = [[r, max(0.0, 1 - r ** (level / 4))] for r in recall]
    precision = {iou: [share * p for _, p in points] for iou, share in (("50", 1.0), ("75", 0.6))}
    path.write_text(json.dumps({"recall": recall, "bbox": precision, "segm": {"50": []}}))


def _pretrain(run, level, forwards, generator, pictures):
    run.mkdir(parents=True)
    summary = {
        "status": "finished", "epochs": 12, "steps": 400, "final_loss": 5.0 - level / 10,
        "forwards_per_step": {"query": 1 + forwards, "key": 1},
    }  # fmt: skip
    (run / "summary.json").write_text(
        json.dumps(summary | {"images_per_second": 110.0 / (1 + forwards / 4), "seconds": 265.0})
    )
    (run / "config.yaml").write_text("train: {epochs: 12, batch_size: 64}\n")
    _journal(
        run / "journal.jsonl", 400, 7.0, 4.5 - level / 10, generator,
        {101: 20 + level, 201: 22 + level, 399: 24 + level},
    )  # fmt: skip
    if pictures:
        _picture(3, level, generator).save(run / "views.png")


def _journal(path, steps, start, end, generator, knn=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1, 2):
        loss = end + (start - end) * math.exp(-4 * step / steps) + generator.gauss(0, 0.08)
        watched = {"knn_top1": knn[step]} if knn and step in knn else {}
        lines.append(json.dumps({"step": step, "loss": loss, "lr": 0.1} | watched))
    path.write_text("\n".join(lines) + '\n{"step": 999, "lo')


def _predictions(folder, level, generator):
    folder.mkdir(parents=True)
    for index in range(2):
        _picture(2, level, random.Random(index)).save(folder / f"{index:03d}.png")


def _picture(panels, level, generator):
    image = Image.new("RGB", (panels * 160, 128), "#8fa3ad")
    draw = ImageDraw.Draw(image)
    for panel in range(panels):
        for _ in range(6):
            x, y, r = generator.randint(20, 140) + 160 * panel, generator.randint(20, 108), generator.randint(8, 26)
            colour = f"#{generator.randint(0, 0xFFFFFF):06x}"
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
            draw.rectangle((x - r, y - r, x + r, y + r), outline="#ffdd00", width=int(level) // 4)
    return image


BACKBONES = (
    "Random initialisation", "Supervised", "SimCLR", "SimSiam", "SimSiam + MixSiam", "BYOL", "MoCo v2",
    "MoCo v2, 800 ep",
)  # fmt: skip
BACKBONES += ("MoCo v2 + MSCN", "MoCo v2 + MixMask", "MoCo v2 + Un-Mix", "MoCo v2 + Un-Mix + MixMask")
DENSE = {
    **{f"{data}_{style}": ("detectron2", f"{data.upper()} {style.upper()}", ["bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP"])
       for data, style in (("voc", "c4"), ("coco", "c4"), ("coco", "fpn"))},
    **{f"{data}_fcn": ("mmseg", f"{title} FCN", ["seg/mIoU", "seg/mAcc"])
       for data, title in (("voc12", "VOC12"), ("cityscapes", "Cityscapes"), ("ade20k", "ADE20K"))},
    **{f"imagenet_{task}": ("classification", f"ImageNet {task}", [f"{task}/top1"]) for task in ("knn", "linear")},
}  # fmt: skip


def many(folder: Path, trials=5, seed=0):
    """Make the results of twelve backbones on eight benchmarks, as a paper would have them."""
    generator = random.Random(seed)
    for index, name in enumerate(BACKBONES):
        for number, (benchmark, (framework, title, metrics)) in enumerate(DENSE.items()):
            level = 30 + 4 * number + (0 if index == 0 else 12 + 0.22 * index + generator.gauss(0, 0.25))
            for trial in range(trials):
                values = {m: level + 3 * i + generator.gauss(0, 0.25) for i, m in enumerate(metrics)}
                made = result(name, benchmark, trial, values, framework=framework, seed=1000 * (trial + 1))
                made["protocol"] |= {"title": title, "headline": metrics[0], "metrics": metrics}
                cost = {
                    "steps": 1000 * (index > 0),
                    "batch_size": 256,
                    "forwards_per_step": {"query": 1 + index % 3, "key": 1},
                }
                made["checkpoint"] |= {"method": "random" if index == 0 else "moco", "pretrain": cost}
                write(folder / f"{index}--{benchmark}--{trial}", made)
    return folder
