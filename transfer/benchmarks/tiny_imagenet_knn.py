"""Tiny-ImageNet by the nearest training images: nothing is trained."""

from transfer.benchmarks import KNN, Benchmark, Protocol


class TinyImagenetKnn(Benchmark):
    """Tiny-ImageNet kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="Tiny-ImageNet kNN",
        framework="classification",
        config="configs/transfer/classification/knn_tiny-imagenet.yaml",
        train="tiny-imagenet-200/train",
        test="tiny-imagenet-200/val",
        metrics=KNN,
        headline="knn200/top1",
        trials=1,
    )
