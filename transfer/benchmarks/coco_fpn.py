"""COCO 2017 with Mask R-CNN R50-FPN, 1x schedule (MoCo, arXiv 1911.05722, table 5; not PixPro's 4conv1fc heads)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoFpn(Benchmark):
    """COCO FPN 1x: synchronised norms in the backbone and the FPN only."""

    protocol = Protocol(
        title="COCO FPN 1x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-fpn_8xb2-90k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
