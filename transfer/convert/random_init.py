"""Make a seeded, randomly initialised backbone as a weights file: the floor that every pre-training must beat."""

import argparse
from pathlib import Path
from typing import Any

from core import config
from core.errors import cli


def make(path: Path, backbone: dict[str, Any], seed: int) -> None:
    """Write the backbone that ``backbone`` (name, depth, width, stem) describes, drawn from ``seed``."""
    import torch  # here, so that --help and planning start fast

    from core import backbones, checkpoint, plugins

    settings = config.parse(plugins.find("core.backbones", backbone.get("name", "resnet")).Config, backbone, "backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbones.build(settings)
    checkpoint.save_backbone(path, network.state_dict(), {"backbone": settings.model_dump(), "seed": seed})


def main() -> None:
    """Parse the command line; trailing ``key=value`` pairs describe the backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="file to write, for example random.pth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("backbone", nargs="*", metavar="key=value", help="for example depth=18 width=16 stem=imagenet")
    arguments = parser.parse_intermixed_args()
    pairs = (pair.partition("=") for pair in arguments.backbone)
    values: dict[str, Any] = {key: int(value) if value.isdigit() else value for key, _, value in pairs}
    make(arguments.output, values, arguments.seed)


if __name__ == "__main__":
    cli(main)
