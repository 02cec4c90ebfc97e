"""COCO 2017 with Mask R-CNN ConvNeXt-T-FPN, 1x (arXiv 2201.03545, app. A.3; the schedule is the suite's own)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpnConvnext(Benchmark):
    """COCO FPN ConvNeXt-T 1x: AdamW; comparable with other ConvNeXt-T only."""

    protocol = Protocol(
        title="COCO FPN ConvNeXt-T 1x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_convnext-t-fpn_8xb2-90k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
