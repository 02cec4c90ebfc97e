"""A few dozen real COCO images as a VOC-layout segmentation set, with a slim FCN R18: ranks nothing."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class TinyCocoSlimSegmentation(Benchmark):
    """tiny COCO slim FCN: 20 classes and background, for backbones that train in minutes."""

    protocol = Protocol(
        title="tiny COCO slim FCN",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18w16-d32_1xb4-200i_tiny-coco-voc-128x128.py",
        train="train",
        test="val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
