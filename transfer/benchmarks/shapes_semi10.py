"""Shapes by fine-tuning on 10 % of the labels."""

from transfer.benchmarks import Benchmark, Protocol


class ShapesSemi10(Benchmark):
    """Shapes 10 % labels: the whole network, 10 % of every class."""

    protocol = Protocol(
        title="Shapes 10 % labels",
        framework="classification",
        config="configs/transfer/classification/semi10-small_shapes.yaml",
        train="shapes, 1600 centred",
        test="shapes, 400 centred",
        metrics=("finetune/top1", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
