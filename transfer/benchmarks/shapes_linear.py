"""Shapes by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class ShapesLinear(Benchmark):
    """Shapes linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="Shapes linear",
        framework="classification",
        config="configs/transfer/classification/linear-cached-100ep_shapes.yaml",
        train="shapes, 1600 centred",
        test="shapes, 400 centred",
        metrics=("linear/top1", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
