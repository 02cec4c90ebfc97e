"""Cityscapes segmentation with FCN R50-D8, 80k iterations (MMSegmentation's schedule; data: arXiv 1604.01685)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class CityscapesFcn80k(Benchmark):
    """Cityscapes FCN-D8 80k: crops of 512 x 1024, 8 images a step."""

    protocol = Protocol(
        title="Cityscapes FCN-D8 80k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r50-d8_4xb2-80k_cityscapes-512x1024.py",
        train="cityscapes train",
        test="cityscapes val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
