"""COCO 2017 with Mask R-CNN R50-C4, 1x schedule (MoCo, arXiv 1911.05722, table 5)."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class CocoC4(Benchmark):
    """COCO C4 1x: every stage and the extra norm after res5 are fine-tuned for 90k iterations of 16 images."""

    protocol = Protocol(
        title="COCO C4 1x",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-c4_8xb2-90k_coco.yaml",
        train="coco_2017_train",
        test="coco_2017_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=5,
    )
