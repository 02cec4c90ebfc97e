"""A few dozen real COCO images with a slim Mask R-CNN R18-FPN, for backbones that train in minutes: ranks nothing."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class TinyCocoSlimFpn(Benchmark):
    """tiny COCO slim FPN: fifty images to train on, the other fifty to test on."""

    protocol = Protocol(
        title="tiny COCO slim FPN",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_tiny-coco.yaml",
        train="tiny_coco_train",
        test="tiny_coco_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP50",
        trials=3,
    )
