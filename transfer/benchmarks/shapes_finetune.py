"""Shapes by fine-tuning on all labels."""

from transfer.benchmarks import Benchmark, Protocol


class ShapesFinetune(Benchmark):
    """Shapes fine-tuning: the whole network."""

    protocol = Protocol(
        title="Shapes fine-tuning",
        framework="classification",
        config="configs/transfer/classification/finetune-small_shapes.yaml",
        train="shapes, 1600 centred",
        test="shapes, 400 centred",
        metrics=("finetune/top1", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
