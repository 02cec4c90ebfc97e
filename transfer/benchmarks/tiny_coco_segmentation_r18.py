"""A few dozen real COCO images as a VOC-layout segmentation set, with FCN R18-D8: proves the path, ranks nothing."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class TinyCocoSegmentationR18(Benchmark):
    """tiny COCO FCN R18: FCN R18-D8 on 20 classes and background, for a CPU."""

    protocol = Protocol(
        title="tiny COCO FCN R18",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18-d8_1xb4-200i_tiny-coco-voc-128x128.py",
        train="train",
        test="val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
