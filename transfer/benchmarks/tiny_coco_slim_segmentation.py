"""Fifty real COCO images to train and to test on in VOC layout, with a slim FCN R18: how fast a backbone fits, nothing more."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class TinyCocoSlimSegmentation(Benchmark):
    """tiny COCO slim FCN fit: 20 classes and background; the training images are the test images."""

    protocol = Protocol(
        title="tiny COCO slim FCN fit",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18w16-d32_1xb8-280i_tiny-coco-voc-fit-128x128.py",
        train="train",
        test="train",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
