"""Detection and instance segmentation on the embedded set, small enough for two CPU cores."""

from transfer.benchmarks import BOX_AND_MASK, Benchmark, Protocol


class ShapesDetection(Benchmark):
    """Shapes detection: a slim Mask R-CNN with an FPN, trained for minutes."""

    protocol = Protocol(
        title="Shapes detection",
        framework="detectron2",
        config="configs/transfer/detection/mask-rcnn_r18w16-fpn_1xb4-400_shapes.yaml",
        train="shapes_train",
        test="shapes_val",
        metrics=BOX_AND_MASK,
        headline="bbox/AP",
        trials=3,
    )
