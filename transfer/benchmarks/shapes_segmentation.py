"""Semantic segmentation of the embedded set, small enough for two CPU cores."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class ShapesSegmentation(Benchmark):
    """Shapes segmentation: a slim FCN, trained for about a minute."""

    protocol = Protocol(
        title="Shapes segmentation",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18w16-d32_1xb16-280i_shapes-64x64.py",
        train="shapes_train",
        test="shapes_val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
