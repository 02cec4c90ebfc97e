"""A few dozen real COCO images with Mask R-CNN R50-FPN: proves the path, ranks nothing."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class TinyCocoFpn(Benchmark):
    """tiny COCO FPN: the FPN protocol with narrow heads, for a CPU."""

    protocol = Protocol(
        title="tiny COCO FPN",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r50-fpn_1xb2-100_tiny-coco.yaml",
        train="tiny_coco_train",
        test="tiny_coco_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP50",
        trials=3,
    )
