"""Cityscapes segmentation with FCN R50-D8, 40k iterations (MMSegmentation's schedule; data: arXiv 1604.01685)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class CityscapesFcn(Benchmark):
    """Cityscapes FCN-D8 40k: crops of 512 x 1024, 8 images a step."""

    protocol = Protocol(
        title="Cityscapes FCN-D8 40k",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py",
        train="cityscapes train",
        test="cityscapes val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
