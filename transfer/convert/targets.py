"""What a backbone is written as, one row a target: its file's form, and its own network to prove the file with."""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from core import backbones, config, plugins
from core.backbones import Backbone
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


@dataclasses.dataclass(frozen=True)
class Target:
    """One file form, and a network of the same framework.

    ``container`` is the entry that holds the tensors ("" for none: the tensors are the file, without a recipe), ``beside`` what
    else is in the file. ``build`` makes the network of a recipe, ``stages`` returns its four stages' features. ``stems`` are
    those of the networks it can hold; ``widths`` and ``strides`` tell whether its ResNets may have other widths than 64 and the
    stride in the 1x1 convolution. Networks for BGR images are turned for RGB ones where ``orders`` has no BGR.
    """

    name: str
    suffixes: tuple[str, ...]
    build: Callable[[Recipe], nn.Module]
    stages: Callable[[Any, Tensor], list[Tensor]]
    container: str = "state_dict"
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stems: tuple[str, ...] = ("imagenet", "patch", "timm")
    widths: bool = True
    orders: tuple[str, ...] = ("RGB",)
    strides: bool = False

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
                "choose detectron2, mmseg, classification or safetensors"
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


def _timm(recipe: Recipe) -> nn.Module:
    """Build timm's network without its classifier; it gives out feature maps too."""
    import timm

    name, extra = recipe.model or f"resnet{recipe.depth}", dict[str, Any]()
    if recipe.family == "convnext":
        name, extra = "convnext_tiny", {"depths": recipe.blocks, "dims": [recipe.width * 2**i for i in range(4)]}
    return timm.create_model(name, pretrained=False, num_classes=0, **extra)


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
        "backbone",
        stems=tuple(STEMS),
        strides=True,
    ),
    # .pkl as Detectron2's users expect it, .pth as the form that needs no pickle of arrays
    Target(
        "detectron2",
        (".pkl", ".pth"),
        _detectron2,
        lambda network, images: [network(images)[f"res{index}"] for index in range(2, 6)],
        "model",
        {"__author__": "masktransfer", "matching_heuristics": True},
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
    Target(
        "timm",
        (".pth", ".safetensors"),
        _timm,
        _timm_stages,
        widths=False,
    ),
    # a plain state dict for ``load_state_dict(..., strict=False)``: only the classifier is missing; the proof keeps the recipe
    Target(
        "torchvision",
        (".pth", ".pt"),
        _torchvision,
        _watched,
        container="",
        stems=("imagenet", "patch"),
        widths=False,
    ),
)
TARGETS = {row.name: row for row in ROWS}
