"""COCO 2017 with Mask R-CNN R50-C4, 2x schedule (MoCo, arXiv 1911.05722, table 5)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoC42x(Benchmark):
    """COCO C4 2x: as 1x for 180k iterations; the two must not be mixed."""

    protocol = Protocol(
        title="COCO C4 2x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-c4_8xb2-180k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
