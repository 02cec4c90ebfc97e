"""ADE20K segmentation with FCN R50-D8, 80k iterations (MMSegmentation's schedule; data: arXiv 1608.05442)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Ade20kFcn(Benchmark):
    """ADE20K FCN-D8 80k: 150 classes, crops of 512."""

    protocol = Protocol(
        title="ADE20K FCN-D8 80k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r50-d8_4xb4-80k_ade20k-512x512.py",
        train="ade20k training",
        test="ade20k validation",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
