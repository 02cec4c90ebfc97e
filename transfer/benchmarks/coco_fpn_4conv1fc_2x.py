"""COCO 2017 with Mask R-CNN R50-FPN and 4conv1fc heads, 2x (PixPro, arXiv 2011.10043)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpn4conv1fc2x(Benchmark):
    """COCO FPN 4conv1fc 2x: as 1x for 180k iterations."""

    protocol = Protocol(
        title="COCO FPN 4conv1fc 2x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-fpn-4conv1fc_8xb2-180k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
