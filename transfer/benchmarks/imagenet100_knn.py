"""ImageNet-100 by the nearest training images: nothing is trained."""

from transfer.benchmarks import KNN, Benchmark, Protocol


class Imagenet100Knn(Benchmark):
    """ImageNet-100 kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="ImageNet-100 kNN",
        framework="classification",
        config="configs/transfer/classification/knn_imagenet100.yaml",
        train="imagenet100/train",
        test="imagenet100/val",
        metrics=KNN,
        headline="knn200/top1",
        trials=1,
    )
