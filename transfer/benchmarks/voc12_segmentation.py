"""PASCAL VOC 2012 segmentation with FCN R50-D8, 20k iterations (DenseCL, arXiv 2011.09157, table 4)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Voc12Segmentation(Benchmark):
    """VOC12 FCN-D8 20k: not comparable with BYOL's FCN-16s at 30k iterations."""

    protocol = Protocol(
        title="VOC12 FCN-D8 20k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py",
        train="trainaug",
        test="val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
