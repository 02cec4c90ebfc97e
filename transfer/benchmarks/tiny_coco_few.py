"""Ten real COCO images to train and to test on with Mask R-CNN R18-FPN: shows that the path learns."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class TinyCocoFew(Benchmark):
    """tiny COCO fit: the training images are the test images."""

    protocol = Protocol(
        title="tiny COCO fit",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r18-fpn_1xb2-400_tiny-coco-few.yaml",
        train="tiny_coco_few",
        test="tiny_coco_few",
        metrics=BOX_AND_MASK,
        headline="bbox/AP50",
        trials=3,
    )
