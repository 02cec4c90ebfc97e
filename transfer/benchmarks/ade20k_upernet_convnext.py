"""ADE20K segmentation with UPerNet ConvNeXt-T, 160k iterations (arXiv 2201.03545, app. A.3)."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class Ade20kUpernetConvnext(Benchmark):
    """ADE20K UPerNet ConvNeXt-T 160k: AdamW; comparable with other ConvNeXt-T only."""

    protocol = Protocol(
        title="ADE20K UPerNet ConvNeXt-T 160k",
        framework="mmseg",
        config="configs/transfer/segmentation/upernet_convnext-t_4xb4-160k_ade20k-512x512.py",
        train="ade20k training",
        test="ade20k validation",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=5,
    )
