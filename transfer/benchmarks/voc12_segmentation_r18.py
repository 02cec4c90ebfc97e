"""PASCAL VOC 2012 segmentation with FCN R18-D8, 20k iterations (MMSegmentation's schedule)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Voc12SegmentationR18(Benchmark):
    """VOC12 FCN-D8 R18 20k: for ResNet-18, with heads a quarter as wide."""

    protocol = Protocol(
        title="VOC12 FCN-D8 R18 20k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18-d8_4xb4-20k_voc12aug-512x512.py",
        train="voc12 trainaug",
        test="voc12 val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
