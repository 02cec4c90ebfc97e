"""Shapes by the nearest training images: nothing is trained."""

from transfer.benchmarks import Benchmark, Protocol


class ShapesKnn(Benchmark):
    """Shapes kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="Shapes kNN",
        framework="classification",
        config="configs/transfer/classification/knn_shapes.yaml",
        train="shapes, 1600 centred",
        test="shapes, 400 centred",
        metrics=("knn20/top1", "knn200/top1", "knn20-0.1/top1", "knn200-0.1/top1"),
        headline="knn200/top1",
        trials=1,
    )
