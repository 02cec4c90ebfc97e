"""COCO 2017 with Mask R-CNN R34-FPN, 1x: the way for basic blocks, which C4's res5 head cannot hold (FPN, arXiv 1612.03144)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpnR34(Benchmark):
    """COCO FPN R34 1x: MoCo's form on a ResNet-34."""

    protocol = Protocol(
        title="COCO FPN R34 1x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r34-fpn_8xb2-90k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
