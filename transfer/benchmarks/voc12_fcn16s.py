"""PASCAL VOC 2012 segmentation with FCN-16s, 30k iterations (MoCo, arXiv 1911.05722; BYOL, arXiv 2006.07733, table 4a)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Voc12Fcn16s(Benchmark):
    """VOC12 FCN-16s 30k: dilation-6 head, crops of 513; not comparable with FCN-D8."""

    protocol = Protocol(
        title="VOC12 FCN-16s 30k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn-16s_r50-d16_8xb2-30k_voc12aug-513x513.py",
        train="voc12 trainaug",
        test="voc12 val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
