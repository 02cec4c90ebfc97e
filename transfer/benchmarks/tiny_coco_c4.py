"""A few dozen real COCO images with Mask R-CNN R50-C4: proves the path, ranks nothing."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class TinyCocoC4(Benchmark):
    """tiny COCO C4: the C4 protocol with few regions per image, for a CPU."""

    protocol = Protocol(
        title="tiny COCO C4",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-c4_1xb2-100_tiny-coco.yaml",
        train="tiny_coco_train",
        test="tiny_coco_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP50",
        trials=3,
    )
