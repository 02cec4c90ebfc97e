"""One recipe, however many devices: batch, lr, warm-up, steps and iterations move together."""

from pathlib import Path

import pytest

from transfer.frameworks._protocol import describe
from transfer.frameworks.mmseg import compat, protocol

R50 = Path(__file__).parents[2] / "configs/transfer/segmentation/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"


def config() -> compat.Config:
    cfg = compat.Config.fromfile(str(R50))
    warm_up = {"type": "LinearLR", "start_factor": 0.1, "begin": 0, "end": 100, "by_epoch": False}
    steps = {"type": "MultiStepLR", "milestones": [14000, 18000], "by_epoch": False}
    cfg.param_scheduler = [*cfg.param_scheduler, warm_up, steps]
    return cfg


def test_on_the_published_number_of_devices_nothing_changes() -> None:
    cfg = config()
    before = cfg.pretty_text
    recipes, _ = protocol.adapt(cfg, processes=4, cuda=True)
    assert recipes["effective"] == recipes["published"]
    assert cfg.pretty_text == before
    assert recipes["published"]["norm"] == "SyncBN"
    assert recipes["published"]["batch"] == 16


def test_on_one_device_a_quarter_of_the_batch_takes_a_quarter_of_the_lr_and_four_times_the_iterations() -> None:
    cfg = config()
    effective = protocol.adapt(cfg, processes=1, cuda=False)[0]["effective"]
    assert effective == {
        "devices": 1,
        "batch": 4,
        "lr": pytest.approx(0.0025),
        "warm_up": 400,
        "steps": [56000, 72000],
        "iterations": 80000,
        "norm": "BN",
    }
    poly = cfg.param_scheduler[0]
    assert (poly.end, poly.eta_min) == (80000, pytest.approx(2.5e-5))
    assert (cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval) == (8000, 8000)
    assert cfg.model.decode_head.norm_cfg.type == cfg.model.auxiliary_head.norm_cfg.type == "BN"


def test_images_seen_and_lr_per_image_are_kept() -> None:
    for processes in (1, 2, 4, 8):
        effective = protocol.adapt(config(), processes, cuda=True)[0]["effective"]
        assert effective["batch"] * effective["iterations"] == 16 * 20000
        assert effective["lr"] / effective["batch"] == pytest.approx(0.01 / 16)


def test_the_lines_show_both_recipes_and_say_what_became_of_syncbn() -> None:
    recipes, said = protocol.adapt(config(), processes=1, cuda=False)
    assert describe(recipes["published"], recipes["effective"]) == [
        "published: 4 x 4 images, lr 0.01, warm-up 100, steps 14000/18000, 20000 iterations, SyncBN",
        "effective: 1 x 4 images, lr 0.0025, warm-up 400, steps 56000/72000, 80000 iterations, BN",
    ]
    assert said == ["SyncBN becomes BN (one device)"]
    gloo = protocol.adapt(config(), processes=2, cuda=False)[1]
    assert gloo == ["SyncBN becomes BN (SyncBN needs CUDA; statistics stay per process)"]
