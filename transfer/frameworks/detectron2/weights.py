"""A config and a weights file agree, are loaded without executing anything, and the whole backbone is proven to have arrived."""

from transfer.frameworks.detectron2 import compat  # noqa: F401, I001 - first: it prepares Detectron2's import

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor

from core import run_folder
from core.checkpoint import save
from core.errors import InputError
from core.files import FileError, write_atomic
from transfer.convert.load_check import LoadError, compare
from transfer.convert.recipe import Recipe
from transfer.frameworks._protocol import check_known, read_checkpoint, same
from transfer.frameworks.detectron2.backbones import FAMILIES


PIXELS = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")
SLIM = "build_slim_resnet_fpn_backbone"


def inject(cfg: Any, recipe: Recipe, explicit: set[str], file: Path | str) -> list[str]:
    """Write the recipe's facts into ``cfg`` where ``explicit`` (keys the user wrote) leaves them open.

    The suite's own pixels and stride, which its configs spell out, yield to the weights'. Returns what was set, as text. Raises
    InputError with the key and both values where the user wrote otherwise.
    """
    check_known(recipe, FAMILIES, "Detectron2", {"stem": "imagenet", "norm": "BN"}, file)
    said = []
    for key, wanted in FAMILIES[recipe.family].facts(recipe).items():
        found = get(cfg, key)
        if same(found, wanted):
            continue
        if key in explicit and not (key in PIXELS and same(found, FAMILIES["resnet"].facts(Recipe())[key])):
            depth = (
                f"use a config for ResNet-{wanted} (r{wanted} in its name)"
                if key.endswith("DEPTH")
                else "remove the key"
            )
            raise InputError(
                f"{key} is {found!r} in the config, but {file} needs {wanted!r}; {depth}, or use other weights"
            )
        cfg.merge_from_list([key, wanted])
        said.append(f"{key} {wanted}")
    if recipe.family == "timm" and "timm" not in cfg.MODEL.BACKBONE.NAME:
        if "MODEL.BACKBONE.NAME" in explicit:
            raise InputError(
                f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME} in the config, but {file} is timm's {recipe.model}; "
                "use a config with timm in its name, such as mask-rcnn_timm-fpn_8xb2-90k_coco.yaml"
            )
        cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
        said.append(f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME}")
    slim = recipe.family == "resnet" and recipe.depth < 50 and recipe.width != 64
    if slim and cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone":
        cfg.MODEL.BACKBONE.NAME = SLIM  # Detectron2's own builder asserts a width of 64
        said.append(f"MODEL.BACKBONE.NAME {SLIM}")
    return said


def refuse_impossible(cfg: Any) -> None:
    """Raise InputError for a network that Detectron2 would build wrongly without a message."""
    depth, name = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.BACKBONE.NAME
    if cfg.MODEL.LOAD_PROPOSALS:
        raise InputError("MODEL.LOAD_PROPOSALS reads pickles, which could run code; use a config with an RPN")
    if "timm" in name and "Res5" in cfg.MODEL.ROI_HEADS.NAME:
        if cfg.MODEL.ROI_HEADS.NAME != "TimmRes5ROIHeads" or list(cfg.MODEL.TIMM.OUT_FEATURES) != ["res4"]:
            raise InputError(
                f"MODEL.BACKBONE.NAME is {name}: C4 on a network of timm needs MODEL.ROI_HEADS.NAME TimmRes5ROIHeads and "
                "MODEL.TIMM.OUT_FEATURES [res4]"
            )
        return
    if "resnet" not in name and cfg.MODEL.ROI_HEADS.NAME.startswith("Res5"):
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name} and MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}: C4 continues a "
            "ResNet in its heads; use an FPN config such as mask-rcnn_convnext-t-fpn"
        )
    if depth < 50 and cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads":
        raise InputError(
            f"MODEL.RESNETS.DEPTH is {depth} and MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME}: C4's res5 is "
            "three bottleneck blocks, which a ResNet-18/34 has not; use Res5ROIHeadsExtraNorm, as in faster-rcnn_r18-c4, or an "
            "FPN config such as mask-rcnn_r18-fpn"
        )


def get(cfg: Any, key: str) -> Any:
    """Return the value at a dotted path."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


# A backbone tensor in a converted file (no prefix), in an FPN (backbone.bottom_up), in C4 (its res5 is in the heads).
BACKBONE = re.compile(
    r"^(?:backbone\.(?:bottom_up\.)?|roi_heads\.(?=res5\.\d)|roi_heads\.res5\.(?=network\.))?((?:stem|res[2-5]\.\d+|network)\..+)$"
)
COUNTER = "num_batches_tracked"  # no weight, and in no converted file


class ProvenCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer; ``checked`` counts the backbone tensors that were found equal to the weights file.

    ``classes`` are kept in the checkpoints, so that predictions can be drawn without the data set.
    """

    checked = 0
    classes: Sequence[str] = ()
    iteration = -1  # of the newest checkpoint

    def load(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Load a file of this machine; raise InputError for an address, which Detectron2 would fetch."""
        refuse_address(path)
        return super().load(path, *arguments, **options)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file as tensors and plain values only; Detectron2 would unpickle it."""
        content = read_checkpoint(filename, self.save_dir)
        content = content if "model" in content else {"model": content}
        model = content["model"]
        if not isinstance(model, dict) or not all(isinstance(value, Tensor | np.ndarray) for value in model.values()):
            raise FileError(f"{filename} holds more than arrays where the network's are; convert the checkpoint again")
        self.read = backbone(content["model"])
        # bare names, as in a converted file, are to be matched by their ends; those of a detector are whole
        bare = any(name.startswith(("stem.conv1.", "network.")) for name in content["model"])
        return {"matching_heuristics": bare, **content}

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the last checkpoint, or load ``path`` and compare every backbone tensor with it.

        Raises LoadError naming the first tensor of the file or of the network that is not the same in both.
        """
        resuming = resume and self.has_checkpoint()
        rest: dict[str, Any] = super().resume_or_load(path, resume=resume)
        if resuming:
            run_folder.check_own(Path(self.save_dir), self.get_checkpoint_file(), rest.get("run"))
            self.checked = rest.get("tensors_checked", 0)
        elif path:
            self.checked = check(self.model.state_dict(), self.read, path)
        return rest

    def save(self, name: str, **values: Any) -> None:
        """Write ``name``.pth whole or not at all, then point ``last_checkpoint`` to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        state = {"model": self.model.state_dict(), **parts, "tensors_checked": self.checked}
        state |= {"classes": list(self.classes), "run": run_folder.fingerprint(Path(self.save_dir)), **values}
        save(Path(self.save_dir) / f"{name}.pth", state)
        self.tag_last_checkpoint(f"{name}.pth")
        self.iteration = values.get("iteration", -1)

    def has_checkpoint(self) -> bool:
        """Tell whether the folder holds a checkpoint."""
        return run_folder.has_checkpoint(Path(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """Return the checkpoint that ``last_checkpoint`` names; raise FileError unless it is a file of the same folder.

        Without that file it is the newest one: a run may be killed between writing a checkpoint and its name.
        """
        folder = Path(self.save_dir)
        if not (folder / "last_checkpoint").is_file():
            return str(max(folder.glob("*.pth"), key=lambda path: path.stat().st_mtime_ns))
        name = (folder / "last_checkpoint").read_text(errors="replace")[:4096].strip()
        if Path(name).name != name or (folder / name).is_symlink() or not (folder / name).is_file():
            there = ", ".join(path.name for path in sorted(folder.glob("*.pth"))) or "none"
            raise FileError(
                f"{folder / 'last_checkpoint'} names {name!r}, which is no checkpoint of that folder (there: {there}); write one "
                "of them into it, or remove it to begin again"
            )
        return str(folder / name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the newest checkpoint whole or not at all."""
        write_atomic(Path(self.save_dir) / "last_checkpoint", last_filename_basename)


def refuse_address(path: str) -> None:
    """Raise InputError when a weights file is given as an address."""
    if "://" in path:
        raise InputError(f"MODEL.WEIGHTS is {path} in a file, from which nothing is fetched; give it as --weights")


def backbone(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the backbone's tensors under their names in a converted file (``stem.*``, ``res2.*`` to ``res5.*``)."""
    found = {}
    for name, value in tensors.items():
        if (match := BACKBONE.match(name)) and not name.endswith(COUNTER):
            if not isinstance(value, Tensor | np.ndarray):
                raise InputError(f"{name} is a {type(value).__name__}, not an array; convert the checkpoint again")
            found[match[1]] = torch.as_tensor(value)
    return found


def check(network: Mapping[str, Any], expected: Mapping[str, Tensor], file: str) -> int:
    """Compare the network's backbone with the file's, both ways and bit for bit; return the number of tensors."""
    loaded = backbone(network)
    count = compare(loaded, expected, file)
    if extra := [name for name in loaded if name not in expected]:
        raise LoadError(
            f"{file} lacks {len(extra)} of {len(loaded)} backbone tensors, first {extra[0]}: they stay random"
        )
    return count
