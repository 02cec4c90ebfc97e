"""COCO 2017 with Mask R-CNN R50-FPN, 2x schedule (MoCo, arXiv 1911.05722, table 5)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpn2x(Benchmark):
    """COCO FPN 2x: MoCo's form, norms in backbone and FPN only, for 180k iterations."""

    protocol = Protocol(
        title="COCO FPN 2x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-fpn_8xb2-180k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
