"""PASCAL VOC 2012 segmentation with FCN R50-D8, 40k iterations (MMSegmentation's longer schedule)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Voc12Segmentation40k(Benchmark):
    """VOC12 FCN-D8 40k: twice as long as the 20k protocol; the two must not be mixed."""

    protocol = Protocol(
        title="VOC12 FCN-D8 40k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py",
        train="voc12 trainaug",
        test="voc12 val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
