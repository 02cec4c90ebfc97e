"""What a pre-training config's comment says: the cost of a step, counted here, what it needs, and the figure it aims at."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from shipped_configs import PRETRAIN, load_pretrain

from core import backbones
from core.plugins import build
from pretrain.objective import Objective

META, ROWS = torch.device("meta"), 16
BACKWARD = 2  # forwards that a backward pass costs


def header(path: Path) -> str:
    """Return the comment that a config begins with, as one line."""
    lines = path.read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def counted(path: Path) -> int:
    """Take a step of a config on tensors without numbers; return its cost in forwards."""
    settings = load_pretrain(path)
    with META:
        method = build("pretrain.methods", settings.method, backbone=backbones.build(settings.backbone))
    branches = {label: build("pretrain.branches", branch) for label, branch in settings.branches.items()}
    made = Objective(method, branches, settings.plain_weight, 0, settings.mixed_norm).train()
    views = torch.empty(2, ROWS, 3, settings.views.size, settings.views.size, device=META)
    made(views[0], views[1], 0)
    return (1 + BACKWARD) * made.forwards["query"] + made.forwards["key"]


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.stem)
def test_a_header_states_the_cost_the_hardware_and_the_figure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *given, **more: contextlib.nullcontext())  # it does not know meta
    text = header(path)
    (cost,) = set(re.findall(r"(\d+) forwards", text))
    assert int(cost) == counted(path)
    assert re.search(r"\d GPU|CPU", text)
    assert re.search(r"Published:|Published \(|[Nn]o published figure|figures? .*could not be read", text)
