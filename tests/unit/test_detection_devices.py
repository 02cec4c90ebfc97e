"""A protocol for eight devices is scaled as a whole, and its norm follows the devices."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import InputError
from transfer.frameworks._protocol import describe
from transfer.frameworks.detectron2.protocol import adapt, summary
from transfer.frameworks.detectron2.run import read_config

FOLDER = Path(__file__).parents[2] / "configs" / "transfer" / "detection"


@pytest.fixture
def voc() -> Any:
    return read_config(str(FOLDER / "faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml"), [])[0]


def test_one_device_scales_batch_lr_warm_up_and_steps_together(voc: Any) -> None:
    cfg, said = adapt(voc, 1, cuda=True)
    assert summary(cfg, 1) == {
        "devices": 1,
        "batch": 2,
        "lr": 0.0025,
        "warm_up": 800,
        "steps": [144000, 176000],
        "iterations": 192000,
        "norm": "BN",
    }
    assert said == ["SyncBN becomes BN (one device) in MODEL.RESNETS"]


def test_eight_devices_are_the_published_protocol(voc: Any) -> None:
    cfg, said = adapt(voc, 8, cuda=True)
    assert summary(cfg, 8) == summary(voc, 8)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.RESNETS.NORM, said) == (16, "SyncBN", [])


def test_the_config_that_was_given_is_not_changed(voc: Any) -> None:
    adapt(voc, 1, cuda=False)
    assert (voc.SOLVER.IMS_PER_BATCH, voc.MODEL.RESNETS.NORM) == (16, "SyncBN")


def test_two_cpu_processes_get_the_norm_that_gloo_can_carry(voc: Any) -> None:
    cfg, said = adapt(voc, 2, cuda=False)
    assert (cfg.MODEL.RESNETS.NORM, cfg.MODEL.DEVICE) == ("naiveSyncBN", "cpu")
    assert said == ["SyncBN becomes naiveSyncBN (SyncBN fails on the CPU) in MODEL.RESNETS"]


def test_naive_sync_bn_replaces_sync_bn_where_it_is_asked_for(voc: Any) -> None:
    cfg, said = adapt(voc, 8, cuda=True, norm="naiveSyncBN")
    assert (cfg.MODEL.RESNETS.NORM, cfg.SOLVER.IMS_PER_BATCH) == ("naiveSyncBN", 16)
    assert said == ["SyncBN becomes naiveSyncBN (asked for) in MODEL.RESNETS"]
    assert (
        adapt(voc, 1, cuda=True, norm="naiveSyncBN")[0].MODEL.RESNETS.NORM == "BN"
    )  # one device has none to sync with


def test_every_norm_of_the_4conv1fc_protocol_is_replaced_together() -> None:
    cfg = read_config(str(FOLDER / "mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco.yaml"), [])[0]
    _, said = adapt(cfg, 1, cuda=False)
    assert said == [
        "SyncBN becomes BN (one device) in MODEL.FPN, MODEL.RESNETS, MODEL.ROI_BOX_HEAD, MODEL.ROI_MASK_HEAD"
    ]


def test_mixed_precision_is_switched_off_on_the_cpu(voc: Any) -> None:
    voc.SOLVER.AMP.ENABLED = True
    cfg, said = adapt(voc, 1, cuda=False)
    assert not cfg.SOLVER.AMP.ENABLED
    assert "SOLVER.AMP is off: Detectron2 has it for CUDA only" in said


def test_a_batch_that_no_device_count_divides_is_refused(voc: Any) -> None:
    voc.SOLVER.IMS_PER_BATCH = 15
    with pytest.raises(InputError, match=r"IMS_PER_BATCH 15 is not a multiple of SOLVER\.REFERENCE_WORLD_SIZE 8"):
        adapt(voc, 1, cuda=False)


def test_both_protocols_are_described_one_under_the_other(voc: Any) -> None:
    cfg, _ = adapt(voc, 1, cuda=False)
    assert describe(summary(voc, 8), summary(cfg, 1)) == [
        "published: 8 x 2 images, lr 0.02, warm-up 100, steps 18000/22000, 24000 iterations, SyncBN",
        "effective: 1 x 2 images, lr 0.0025, warm-up 800, steps 144000/176000, 192000 iterations, BN",
    ]
