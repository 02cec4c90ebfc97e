"""A few dozen real COCO images as a VOC-layout segmentation set, with FCN-16s R50: proves the path, ranks nothing."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class TinyCocoFcn16s(Benchmark):
    """tiny COCO FCN-16s: MoCo's dilation-6 head on 20 classes and background, for a CPU."""

    protocol = Protocol(
        title="tiny COCO FCN-16s",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn-16s_r50-d16_1xb4-200i_tiny-coco-voc-128x128.py",
        train="train",
        test="val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
