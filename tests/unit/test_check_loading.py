"""Silent non-loading is found: is every tensor of a file in a built model, and do the features agree?"""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from core.backbones.resnet import ResNet
from transfer.convert.load_check import inside

NETWORK = ResNet(ResNet.Config(depth=18, width=8))


class Detector(nn.Module):
    """Somebody's model with a backbone inside."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"body": backbone})
        self.head = nn.Linear(4, 4)


def weights(tmp_path: Path) -> Path:
    torch.save({f"backbone.{name}": tensor for name, tensor in NETWORK.state_dict().items()}, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def loaded(network: Any, **changes: torch.Tensor) -> Detector:
    network.load_state_dict(NETWORK.state_dict() | {k.replace("__", "."): v for k, v in changes.items()}, strict=False)
    return Detector(network)


def test_a_model_that_loaded_all_of_it_is_told_from_one_that_did_not(tmp_path: Path) -> None:
    file = weights(tmp_path)
    lines, whole = inside(loaded(ResNet(ResNet.Config(depth=18, width=8))), file)
    assert (whole, lines[0]) == (True, f"100 of 100 tensors of {file} are in the model")
    assert [line.split()[-1] for line in lines[1:]] == ["0.0e+00"] * 4
    lines, whole = inside(loaded(ResNet(ResNet.Config(depth=18, width=8)), layer4__1__bn2__bias=torch.ones(64)), file)
    assert (whole, lines[0].split()[0], lines[1]) == (
        False,
        "99",
        "not loaded, or changed afterwards: layer4.1.bn2.bias",
    )
    lines, whole = inside(Detector(torchvision.models.resnet18()), file)
    assert (whole, lines) == (False, [f"the model is a resnet18, {file} holds a resnet18-width8"])


def test_a_model_that_holds_every_tensor_and_computes_something_else_is_found(tmp_path: Path) -> None:
    other = ResNet(ResNet.Config(depth=18, width=8))
    other.layer3[0].conv1.padding = (0, 0)
    other.layer3[0].conv1.stride = (1, 1)
    other.layer3[0].downsample[0].stride = (1, 1)
    other.layer3[0].conv2.padding = (2, 2)
    lines, whole = inside(loaded(other), weights(tmp_path))
    assert (whole, lines[0].split()[0], lines[1].split()[-1], lines[3]) == (
        False, "100", "0.0e+00", "  stage 3: no such features",
    )  # fmt: skip


def test_the_tool_ends_with_1_when_something_was_not_loaded(tmp_path: Path, run_tool: Any) -> None:
    weights(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom core.backbones.resnet import ResNet\n\n\ndef build():\n"
        "    torch.manual_seed(5)\n    return ResNet(ResNet.Config(depth=18, width=8))\n"
    )
    done = run_tool("tools/check_loading.py", "mine:build", "a.pth", check=1)
    assert "of 100 tensors of a.pth are in the model" in done.stdout
    done = run_tool("tools/check_loading.py", "mine:nothing", "a.pth", check=2)
    assert "mine:nothing names no function" in done.stderr
