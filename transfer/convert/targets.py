"""What a backbone is written as, one row a target: its file's form, and its own network to prove the file with."""

import dataclasses
import difflib
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core import backbones, config, plugins
from core.backbones import Backbone, timm
from core.errors import InputError
from transfer.convert.dialects import FORMER
from transfer.convert.recipe import Recipe

STEMS = {
    "imagenet": "7x7 stem",
    "cifar": "3x3 CIFAR stem",
    "small": "5x5 stem",
    "patch": "4x4 patch stem of a ConvNeXt",
    "timm": "stem of timm's network",
}


CONVNEXT_TINY = {"depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768]}
MMDET = "mmdet.models.backbones.resnet"


@dataclasses.dataclass(frozen=True)
class Target:
    """One file form, and a network of the same framework.

    ``suffixes`` are those of the file; with ``folder`` the output is a folder that holds a file of this name, and ``config`` is
    the content of the config.json beside it.

    ``container`` is the entry that holds the tensors ("" for none: the tensors are the file, without a recipe), ``beside`` what
    else is in the file. ``build`` makes the network of a recipe, ``stages`` returns its four stages' features. ``stems`` are
    those of the networks it can hold; ``widths`` and ``strides`` tell whether its ResNets may have other widths than 64 and the
    stride in the 1x1 convolution. Networks for BGR images are turned for RGB ones where ``orders`` has no BGR. ``naming``: whose
    names it has, where not its own. ``advice`` says what a framework that reads no recipe must be told.
    """

    name: str
    suffixes: tuple[str, ...]
    build: Callable[[Recipe], nn.Module]
    stages: Callable[[Any, Tensor], list[Tensor]]
    folder: str = ""
    container: str = "state_dict"
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stems: tuple[str, ...] = ("imagenet", "patch", "timm")
    widths: bool = True
    orders: tuple[str, ...] = ("RGB",)
    strides: bool = False
    naming: str = ""
    advice: Callable[[Recipe], list[str]] = lambda recipe: []
    config: Callable[[Recipe], dict[str, Any]] = lambda recipe: {}

    def file(self, output: Path) -> Path:
        """Return the file that holds the tensors."""
        return output / self.folder if self.folder else output

    def check(self, output: Path) -> None:
        """Raise InputError when the output's name is not one of the target's."""
        if not self.folder and output.suffix not in self.suffixes:
            raise InputError(f"{output} must end in {' or '.join(self.suffixes)} for {self.name}")
        if self.folder and output.is_file():
            raise InputError(f"{output} is a file, and {self.name} writes a folder; choose another output")

    def refuse(self, recipe: Recipe, source: Any) -> None:
        """Raise InputError when the target has no network for the recipe."""
        if recipe.stem == "cifar" and recipe.stem not in self.stems:
            raise InputError(
                f"{source} has the 3x3 CIFAR stem, {self.name} has a 7x7 one; pre-train with backbone.stem=imagenet"
            )
        if recipe.stem not in self.stems:
            stem = STEMS.get(recipe.stem, f"{recipe.stem} stem")
            raise InputError(f"{source} has the {stem}, which {self.name} does not hold; choose another target")
        if recipe.stride_in_1x1 and recipe.depth >= 50 and not self.strides:
            raise InputError(
                f"{source} is a Caffe-style ResNet, whose stride is in the 1x1 convolution; {self.name}'s has it in the 3x3: "
                "choose detectron2, mmseg, mmdet, classification or safetensors"
            )
        if not self.widths and recipe.family == "resnet" and recipe.width != 64:
            raise InputError(
                f"{source} is of width {recipe.width}, {self.name}'s ResNets of 64; use --target safetensors"
            )


def find(name: str) -> Target:
    """Return a target by its name; raise InputError listing what there is."""
    if name not in TARGETS:
        close = FORMER.get(name) or "".join(difflib.get_close_matches(name, TARGETS, n=1))
        raise InputError(
            f"no target {name!r}; there are: {', '.join(TARGETS)}" + (f" (did you mean {close!r}?)" if close else "")
        )
    return TARGETS[name]


def ours(recipe: Recipe) -> Backbone:
    """Build the project's own network of a recipe, randomly initialised; raise InputError when there is no such one."""
    settings = plugins.find("core.backbones", recipe.family).Config
    return backbones.build(config.parse(settings, recipe.backbone(), "the recipe of the weights"))


def _side(framework: str, recipe: Recipe) -> nn.Module:
    """Build a framework's own network; the room above is imported here only, and only by those who ask for that framework."""
    families = importlib.import_module(f"transfer.frameworks.{framework}.backbones").FAMILIES
    network: nn.Module = families[recipe.family].build_network(recipe)
    return network


def _detectron2(recipe: Recipe) -> nn.Module:
    return _side("detectron2", recipe)


def _mmseg(recipe: Recipe) -> nn.Module:
    return _side("mmseg", recipe)


def _mmdet(recipe: Recipe) -> nn.Module:
    """Build MMDetection's own ResNet; raise InputError where MMDetection is not installed.

    The imports of its heads fail on an MMCV without compiled operators; those of its backbones come first, and need none.
    """
    if MMDET not in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MMCV's, of its missing operators and of torch's newer names
            try:
                importlib.import_module("mmdet.models")
            except (ImportError, AttributeError) as error:
                if MMDET not in sys.modules:
                    raise InputError(
                        f"the proof for mmdet needs MMDetection ({error}): pip install -e .[mmdet]"
                    ) from error
    size = {"base_channels": recipe.width, "stem_channels": recipe.width, "style": recipe.style}
    network: nn.Module = sys.modules[MMDET].ResNet(recipe.depth, **size, norm_cfg={"type": "BN"}, norm_eval=False)
    return network


def _mmdet_config(recipe: Recipe) -> list[str]:
    """Return what a config of MMDetection must say, which reads no recipe."""
    slim = "" if recipe.width == 64 else f", base_channels={recipe.width}, stem_channels={recipe.width}"
    mean, std = (list(values) for values in (recipe.mean, recipe.std))
    return [
        f"MMDetection's config must say backbone=dict(type='ResNet', depth={recipe.depth}{slim}, style='{recipe.style}') and "
        f"data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb={recipe.channel_order == 'RGB'})"
    ]


def _timm(recipe: Recipe) -> nn.Module:
    """Build timm's network without its classifier; it gives out feature maps too."""
    name, extra = _timm_name(recipe)
    network: nn.Module = importlib.import_module("timm").create_model(name, pretrained=False, num_classes=0, **extra)
    return network


def _timm_name(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """Return what timm calls the network, and the arguments of another size than the name has."""
    if recipe.family == "convnext":
        sizes = {"depths": list(recipe.blocks), "dims": [recipe.width * 2**i for i in range(4)]}
        return "convnext_tiny", {} if sizes == CONVNEXT_TINY else sizes
    return recipe.model or f"resnet{recipe.depth}", {}


def _timm_config(recipe: Recipe) -> dict[str, Any]:
    """Return the config.json with which ``timm.create_model("hf-hub:owner/name", pretrained=True)`` builds and loads it.

    What stands after the stages is in no file, and timm looks for no tensor of it where ``num_classes`` is 0.
    """
    name, extra = _timm_name(recipe)
    own = timm.pretrained_cfg(name)
    kept = {key: own[key] for key in ("interpolation", "crop_pct", "first_conv", "classifier") if own.get(key)}
    pixels = {key: [round(value / 255, 6) for value in getattr(recipe, key)] for key in ("mean", "std")}
    size = recipe.input_size or own.get("input_size", (3, 224, 224))[1:]
    return {
        "architecture": name,
        "model_args": {"num_classes": 0, **extra},
        "pretrained_cfg": {"input_size": [3, *size], **kept, **pixels},
    }


def _timm_stages(network: Any, images: Tensor) -> list[Tensor]:
    """Return the last feature map of each of the strides 4, 8, 16 and 32; a ResNet's stem gives out one of stride 2."""
    found = network.forward_intermediates(images, intermediates_only=True)
    strides = [images.shape[-1] // features.shape[-1] for features in found]
    return [found[len(strides) - 1 - strides[::-1].index(stride)] for stride in (4, 8, 16, 32)]


def _torchvision(recipe: Recipe) -> nn.Module:
    import torchvision
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    if recipe.family == "resnet":
        network = getattr(torchvision.models, f"resnet{recipe.depth}")(weights=None)
        network.fc = nn.Identity()
        return network
    widths: list[Any] = [recipe.width * 2**index for index in range(4)]
    following = [*widths[1:], None]
    network = ConvNeXt([CNBlockConfig(*sizes) for sizes in zip(widths, following, recipe.blocks, strict=True)])
    network.classifier = nn.Identity()
    return network


def _watched(network: Any, images: Tensor) -> list[Tensor]:
    """Run torchvision's network and return what leaves its four stages."""
    resnet = hasattr(network, "layer1")
    parts = [getattr(network, f"layer{index}") if resnet else network.features[2 * index - 1] for index in range(1, 5)]
    found: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda _, __, output: found.append(output)) for part in parts]
    network(images)
    for hook in hooks:
        hook.remove()
    return found


ROWS = (
    # what tools/train_classifier.py reads: this project's own names, any width, any stem
    Target(
        "classification",
        (".pth",),
        ours,
        lambda network, images: network.stages(images),
        container="backbone",
        stems=tuple(STEMS),
        strides=True,
    ),
    # .pkl as Detectron2's users expect it, .pth as the form that needs no pickle of arrays
    Target(
        "detectron2",
        (".pkl", ".pth"),
        _detectron2,
        lambda network, images: list(map(network(images).get, ("res2", "res3", "res4", "res5"))),
        container="model",
        beside={"__author__": "masktransfer", "matching_heuristics": True},
        orders=("RGB", "BGR"),
        strides=True,
    ),
    # also what MMEngine's ``init_cfg=dict(type='Pretrained', checkpoint=...)`` reads
    Target(
        "mmseg",
        (".pth",),
        _mmseg,
        lambda network, images: list(network(images)),
        beside={"meta": {}},
        orders=("RGB", "BGR"),
        strides=True,
    ),
    # its own ResNet's names are torchvision's
    Target(
        "mmdet",
        (".pth",),
        _mmdet,
        lambda network, images: list(network(images)),
        beside={"meta": {}},
        stems=("imagenet",),
        orders=("RGB", "BGR"),
        strides=True,
        advice=_mmdet_config,
    ),
    # tensors and text and nothing else, the recipe in the metadata; torchvision's names, any width, any stem
    Target(
        "safetensors",
        (".safetensors",),
        ours,
        lambda network, images: network.stages(images),
        stems=tuple(STEMS),
        orders=("RGB", "BGR"),
        strides=True,
    ),
    # what ``timm.create_model(name, checkpoint_path=...)`` and ``load_checkpoint(model, file, strict=False)`` take
    Target("timm", (".pth", ".safetensors"), _timm, _timm_stages, widths=False),
    # a folder for the Hugging Face Hub, in timm's layout; tools/convert.py writes a model card into it
    Target(
        "hf",
        (".safetensors",),
        _timm,
        _timm_stages,
        "model.safetensors",
        widths=False,
        naming="timm",
        config=_timm_config,
    ),
    # a plain state dict for ``load_state_dict(..., strict=False)``: only the classifier is missing; the proof keeps the recipe
    Target(
        "torchvision", (".pth", ".pt"), _torchvision, _watched, container="", stems=("imagenet", "patch"), widths=False
    ),
)
TARGETS = {row.name: row for row in ROWS}
