"""ADE20K segmentation with UPerNet R50, 160k iterations (arXiv 1807.10221, MMSegmentation's schedule)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Ade20kUpernet160k(Benchmark):
    """ADE20K UPerNet 160k: all four stages, not dilated."""

    protocol = Protocol(
        title="ADE20K UPerNet 160k",
        framework="mmseg",
        config="configs/transfer/segmentation/upernet_r50_4xb4-160k_ade20k-512x512.py",
        train="ade20k training",
        test="ade20k validation",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
