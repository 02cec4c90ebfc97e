"""Semantic segmentation of the embedded set, small enough for two CPU cores."""

from transfer.benchmarks import SEGMENTATION, Benchmark, Protocol


class ShapesSegmentation(Benchmark):
    """Shapes segmentation: a slim FCN on the dilated network, trained for minutes."""

    protocol = Protocol(
        title="Shapes segmentation",
        framework="mmseg",
        config="configs/transfer/segmentation/fcn_r18w16-d8_1xb8-150i_shapes-128x128.py",
        train="shapes_train",
        test="shapes_val",
        metrics=SEGMENTATION,
        headline="seg/mIoU",
        trials=3,
    )
