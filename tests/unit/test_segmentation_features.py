"""The weights mean the same in MMSegmentation's ResNet as in torchvision's, plain and dilated."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from transfer.frameworks.mmseg import compat  # noqa: F401 - before mmseg


def randomised(network: nn.Module) -> nn.Module:
    """Give norms other statistics than 0 and 1, so that leaving one out would show."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "running_var" in name or ("bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif "running_mean" in name or name.endswith("bias"):
            tensor.normal_(0, 0.1, generator=generator)
    return network.eval()


def torchvision_stages(network: nn.Module, images: Tensor) -> list[Tensor]:
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    stages = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        stages.append(x)
    return stages


# torchvision dilates bottleneck networks only.
@pytest.mark.parametrize(("depth", "dilated"), [(18, False), (34, False), (50, False), (50, True)])
def test_all_four_stages_agree_with_torchvision(depth: int, dilated: bool) -> None:
    from mmseg.models.backbones import ResNet

    torch.manual_seed(0)
    options = {"replace_stride_with_dilation": [False, True, True]} if dilated else {}
    ours = randomised(getattr(torchvision.models, f"resnet{depth}")(**options))
    shape = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)} if dilated else {}
    network = ResNet(depth=depth, style="pytorch", contract_dilation=True, norm_eval=False, **shape)
    network.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("fc.")}, strict=True)
    network.eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pairs = list(zip(torchvision_stages(ours, images), network(images), strict=True))
    differences = [float((a - b).abs().max()) for a, b in pairs]
    assert max(differences) < 1e-5, differences
    assert min(float(a.abs().max()) for a, _ in pairs) > 0.1  # not equal because all is zero


def test_without_contract_dilation_the_dilated_network_is_another_one() -> None:
    from mmseg.models.backbones import ResNet

    torch.manual_seed(0)
    ours = randomised(torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]))
    network = ResNet(depth=50, style="pytorch", contract_dilation=False, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    network.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith("fc.")}, strict=True)
    network.eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        differences = [
            float((a - b).abs().max()) for a, b in zip(torchvision_stages(ours, images), network(images), strict=True)
        ]
    assert max(differences[:2]) < 1e-5
    assert differences[2] > 1e-2
