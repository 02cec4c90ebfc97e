"""Every shipped config of the three families, by its file name's grammar and as its own framework loads it.

A loaded config is shared by all tests: change a copy only.
"""

import functools
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PRETRAIN = sorted(path for path in (ROOT / "configs" / "pretrain").rglob("*.yaml") if "_base_" not in path.parts)
DETECTION = sorted((ROOT / "configs" / "transfer" / "detection").glob("*.yaml"))
SEGMENTATION = sorted((ROOT / "configs" / "transfer" / "segmentation").glob("*.py"))

# r50, r18w16 (width 16), or another family's name: facts about a ResNet's inside are asked of ResNets only
BACKBONE = r"(?:r(?P<depth>\d+)(?:w(?P<width>\d+))?|(?P<family>convnext-[a-z]+|timm))"
SIZE = r"(?P<devices>\d+)xb(?P<images>\d+)"
NAMES = {
    "pretrain": re.compile(rf"(?P<method>[a-z0-9-]+)_{BACKBONE}_{SIZE}-(?P<length>\d+)ep_(?P<data>[a-z0-9_-]+)"),
    "detection": re.compile(
        rf"(?P<method>mask|faster)-rcnn_{BACKBONE}-(?P<neck>c4|fpn)(?P<heads>-4conv1fc)?"
        r"(?P<variant>-(?:naivesyncbn|plain|spark|official))?"
        rf"_{SIZE}-(?P<length>\d+k?)_(?P<data>[a-z0-9-]+)"
    ),
    "segmentation": re.compile(
        rf"(?P<method>fcn|fcn-16s|upernet|linear)_{BACKBONE}(?:-d(?P<stride>\d+))?"
        rf"(?P<variant>-(?:pad0|moco|slotcon|official))?_{SIZE}-(?P<length>\d+(?:k|i))_"
        r"(?P<data>[a-z0-9-]+)-(?P<height>\d+)x(?P<across>\d+)"
    ),
}


class Name(dict[str, Any]):
    """The parts of a config's name; numbers are numbers, and ``length`` counts iterations or epochs."""

    def __init__(self, family: str, path: Path) -> None:
        match = NAMES[family].fullmatch(path.stem)
        assert match, f"{path.name} does not follow the grammar of the other names"
        super().__init__(match.groupdict())
        for key in {"depth", "devices", "images", "height", "across"} & set(self):
            self[key] = int(self[key]) if self[key] else None
        self["width"] = int(self["width"] or 64)
        self["length"] = int(self["length"].removesuffix("i").replace("k", "000"))


def shipped(family: str, paths: list[Path]) -> Any:
    """Return pytest parameters (path, name), one a config."""
    return pytest.mark.parametrize(("path", "name"), [pytest.param(p, Name(family, p), id=p.stem) for p in paths])


@functools.cache
def load_detection(path: Path) -> Any:
    """Load with fvcore alone, over Detectron2's own defaults."""
    from transfer.frameworks.detectron2 import compat  # isort: skip # noqa: F401 - first: it prepares Detectron2's import
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.set_new_allowed(True)  # SOLVER.OPTIMIZER is ours
    cfg.merge_from_other_cfg(CfgNode(CfgNode.load_yaml_with_base(str(path))))
    return cfg


@functools.cache
def load_segmentation(path: Path) -> Any:
    """Load with MMEngine alone."""
    from transfer.frameworks.mmseg import compat

    return compat.Config.fromfile(str(path))


@functools.cache
def load_pretrain(path: Path) -> Any:
    """Load as pretrain/run.py does."""
    from core import config
    from pretrain.config import PretrainSettings

    return config.parse(PretrainSettings, config.load(path), path)
