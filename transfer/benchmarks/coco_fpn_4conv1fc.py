"""COCO 2017 with Mask R-CNN R50-FPN and 4conv1fc heads, 1x (PixPro, arXiv 2011.10043, table 1)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpn4conv1fc(Benchmark):
    """COCO FPN 4conv1fc 1x: norms in the heads too; not comparable with MoCo's FPN."""

    protocol = Protocol(
        title="COCO FPN 4conv1fc 1x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-fpn-4conv1fc_8xb2-90k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
