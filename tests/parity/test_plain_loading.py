"""Converted files work with Detectron2 and MMEngine alone: none of this project's code is imported where they train."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.backbones.resnet import ResNet
from core.checkpoint import save_backbone
from core.weights_file import read_weights_file
from transfer.convert.convert import convert

# Detectron2's DefaultTrainer on a plain config (what its tools/train_net.py runs), then DetectionCheckpointer on a model that was
# built by hand (what tools/plain_train_net.py runs). Printed: how many of the file's tensors the network holds, bit for bit.
DETECTRON2 = """
    import json, pickle, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.engine import DefaultTrainer
    from detectron2.modeling import build_model

    folder = sys.argv[1]
    record = {"file_name": f"{folder}/0.png", "height": 64, "width": 64, "image_id": 0}
    box = {"bbox": [8, 8, 40, 40], "bbox_mode": 0, "category_id": 0, "segmentation": [[8, 8, 40, 8, 40, 40, 8, 40]]}
    DatasetCatalog.register("made", lambda: [{**record, "image_id": i, "annotations": [box]} for i in range(2)])
    MetadataCatalog.get("made").set(thing_classes=["square"])

    cfg = get_cfg()
    cfg.merge_from_list([
        "MODEL.WEIGHTS", f"{folder}/backbone.pkl", "MODEL.DEVICE", "cpu", "MODEL.MASK_ON", "True",
        "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.BACKBONE.FREEZE_AT", "0",
        "MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.STRIDE_IN_1X1", "False",
        "MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.OUT_FEATURES", "['res2','res3','res4','res5']",
        "MODEL.FPN.IN_FEATURES", "['res2','res3','res4','res5']", "MODEL.FPN.OUT_CHANNELS", "16",
        "MODEL.ANCHOR_GENERATOR.SIZES", "[[8],[16],[32],[64],[128]]",
        "MODEL.RPN.IN_FEATURES", "['p2','p3','p4','p5','p6']", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES", "['p2','p3','p4','p5']", "MODEL.ROI_HEADS.NUM_CLASSES", "1",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20",
        "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", "1", "MODEL.ROI_BOX_HEAD.FC_DIM", "8",
        "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8",
        "INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]", "MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]",
        "INPUT.MIN_SIZE_TRAIN", "(64,)", "DATALOADER.NUM_WORKERS", "0", "DATASETS.TRAIN", "('made',)", "DATASETS.TEST", "()",
        "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", folder,
    ])
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    with open(f"{folder}/backbone.pkl", "rb") as file:
        expected = {name: torch.as_tensor(value) for name, value in pickle.load(file)["model"].items()}
    def held(model):
        state = model.backbone.bottom_up.state_dict()
        return sum(torch.equal(state[name], value) for name, value in expected.items())
    by_trainer = held(trainer.model)
    trainer.train()
    model = build_model(cfg)
    DetectionCheckpointer(model).load(f"{folder}/backbone.pth")
    ours = [name for name in sys.modules if name.split(".")[0] in ("core", "transfer", "pretrain")]
    loss = float(trainer.storage.latest()["total_loss"][0])
    print(json.dumps({"by_trainer": by_trainer, "by_hand": held(model), "loss": loss, "ours": ours}))
"""

MMENGINE = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    import mmseg.datasets, mmseg.engine, mmseg.evaluation, mmseg.models
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    folder = sys.argv[1]
    file = torch.load(f"{folder}/backbone.pth", weights_only=True)["state_dict"]
    said = {}

    class Compare(Hook):
        def before_train(self, runner):
            state = runner.model.backbone.state_dict()
            said["held"] = sum(torch.equal(state[name], value) for name, value in file.items())

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            said["loss"] = float(outputs["loss"])

    norm = dict(type="BN", requires_grad=True)
    pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    cfg = Config(dict(
        default_scope="mmseg", work_dir=folder, custom_hooks=[], log_level="ERROR",
        default_hooks=dict(checkpoint=None, logger=None),
        model=dict(
            type="EncoderDecoder",
            data_preprocessor=dict(type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                                   bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)),
            backbone=dict(type="ResNet", depth=18, style="pytorch", norm_cfg=norm, norm_eval=False,
                          init_cfg=dict(type="Pretrained", checkpoint=f"{folder}/backbone.pth")),
            decode_head=dict(type="FCNHead", in_channels=512, in_index=3, channels=8, num_convs=1, concat_input=False,
                             num_classes=2, norm_cfg=norm, loss_decode=dict(type="CrossEntropyLoss")),
            train_cfg=dict(), test_cfg=dict(mode="whole")),
        train_dataloader=dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=False), dataset=dict(
            type="BaseSegDataset", data_root=folder, img_suffix=".png", seg_map_suffix=".png",
            metainfo=dict(classes=("a", "b"), palette=[[0, 0, 0], [9, 9, 9]]),
            data_prefix=dict(img_path="images", seg_map_path="masks"), pipeline=pipeline)),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=2),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01)),
    ))
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Compare())
    runner.train()
    ours = [name for name in sys.modules if name.split(".")[0] in ("core", "transfer", "pretrain")]
    print(json.dumps({**said, "ours": ours}))
"""


def alone(script: str, folder: Path) -> dict[str, Any]:
    """Run a script in a process of its own, outside the project, and return what it printed last."""
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    network = ResNet(ResNet.Config(depth=18))
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    save_backbone(folder / "ours.pth", network.state_dict(), {"backbone": {"name": "resnet", "depth": 18}})
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for place in ("images", "masks", "."):
        (folder / place).mkdir(exist_ok=True)
        for index in range(2):
            content = (pixels[..., 0] > 127).astype(np.uint8) if place == "masks" else pixels
            Image.fromarray(content).save(folder / place / f"{index}.png")
    return folder


def test_detectron2_alone_loads_every_tensor_and_trains(checkpoint: Path) -> None:
    for name in ("backbone.pkl", "backbone.pth"):
        convert(checkpoint / "ours.pth", checkpoint / name, target="detectron2")
    assert len(read_weights_file(checkpoint / "backbone.pkl")["model"]) == 100
    said = alone(DETECTRON2, checkpoint)
    assert (said["by_trainer"], said["by_hand"], said["ours"]) == (100, 100, [])
    assert 0 < said["loss"] < 100


def test_mmengines_runner_alone_loads_every_tensor_and_trains(checkpoint: Path) -> None:
    convert(checkpoint / "ours.pth", checkpoint / "backbone.pth", target="mmseg")
    said = alone(MMENGINE, checkpoint)
    assert len(torch.load(checkpoint / "backbone.pth", weights_only=True)["state_dict"]) == 100
    assert (said["held"], said["ours"]) == (100, [])
    assert 0 < said["loss"] < 100
