"""Ten real COCO images to train and to test on with a slim Mask R-CNN R18-FPN: how fast a backbone fits, nothing more."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class TinyCocoSlimFew(Benchmark):
    """tiny COCO slim fit: the training images are the test images."""

    protocol = Protocol(
        title="tiny COCO slim fit",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_tiny-coco-few.yaml",
        train="tiny_coco_few",
        test="tiny_coco_few",
        metrics=BOX_AND_MASK,
        headline="bbox/AP50",
        trials=3,
    )
