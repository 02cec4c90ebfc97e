"""A trained segmentation network as a function from an image to a picture of what it sees."""

from transfer.frameworks.mmseg import compat  # noqa: I001 - first: it prepares the mm* packages

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image, ImageDraw, ImageFont

from core.files import FileError
from transfer.frameworks.mmseg import backbones, heads  # noqa: F401 - they register the networks that are ours
from transfer.frameworks.mmseg.data import NAMED, leaves

LEGEND = 12  # classes


def network(content: dict[str, Any], file: Path, score: float) -> Callable[[np.ndarray], Image.Image]:
    """Build the network of a checkpoint with the config in it; raise FileError when it cannot be. ``score`` is not used."""
    cfg = config(content["meta"]["cfg"], file)
    names = content["meta"].get("dataset_meta") or {}
    try:
        with compat.quiet():
            init_default_scope("mmseg")
            model = MODELS.build(cfg.model)
            model.load_state_dict(content["state_dict"])
            steps = [dict(step) for step in next(leaves(cfg.val_dataloader.dataset)).pipeline]
            steps = [step for step in steps if step["type"] not in (*NAMED, *NAMED.values())]
            pipeline = Compose([{"type": "LoadImageFromNDArray"}, *steps])
        classes = [str(name) for name in names["classes"]]
        palette = np.array(names["palette"], np.uint8).reshape(len(classes), 3)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError, StopIteration) as error:
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise FileError(f"{file} does not fit the config in it ({reason}); give what train_seg.py wrote") from error
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @torch.no_grad()
    def find(image: np.ndarray) -> Image.Image:
        with compat.quiet():
            packed = pipeline({"img": np.ascontiguousarray(image[:, :, ::-1])})  # MMSegmentation's images are BGR
            (sample,) = model.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
        return picture(image, sample.pred_sem_seg.data[0].cpu().numpy(), classes, palette)

    return find


def config(text: str, file: Path) -> Any:
    """Read the Python text in which MMEngine keeps a config: assignments of plain values, which are read and not executed."""
    try:
        body = ast.parse(text).body
        assert all(isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) for line in body)
        return ConfigDict({line.targets[0].id: _plain(line.value) for line in body})  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError) as error:
        raise FileError(
            f"{file}: the config in it holds more than plain values; give what train_seg.py wrote"
        ) from error


def _plain(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub()):
            return -_plain(node.operand)
        case ast.List():
            return [_plain(part) for part in node.elts]
        case ast.Tuple():
            return tuple(_plain(part) for part in node.elts)
        case ast.Dict():
            pairs = {_plain(key): _plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            pairs = {word.arg: _plain(word.value) for word in node.keywords if word.arg}
        case _:
            raise ValueError(f"{type(node).__name__} is no plain value")
    if "." in str(pairs.get("type", "")):  # MMEngine would import the module, whichever it is, and call what is in it
        raise ValueError(f"{pairs['type']} is no name of a registry")
    return pairs


def picture(image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: np.ndarray) -> Image.Image:
    """Return the image, the image under its classes' colours, and below both what the colours mean, largest area first."""
    height, width = labels.shape
    photo = Image.fromarray(image)
    colours = Image.fromarray(palette[labels])
    size = max(12, max(height, width) // 50)
    found = np.bincount(labels.ravel(), minlength=len(classes))
    shown = [int(index) for index in np.argsort(-found)[:LEGEND] if found[index]]
    sheet = Image.new("RGB", (2 * width + 4, height + (size + 6) * len(shown) + 6), "white")
    sheet.paste(photo, (0, 0))
    sheet.paste(Image.blend(photo, colours, 0.6), (width + 4, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for line, index in enumerate(shown):
        top = height + 6 + line * (size + 6)
        pen.rectangle((4, top, 4 + size, top + size), fill=tuple(palette[index].tolist()), outline="black")
        share = 100 * found[index] / labels.size
        pen.text((12 + size, top), f"{classes[index]}  {share:.1f} %", fill="black", font=font)
    return sheet
