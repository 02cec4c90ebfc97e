"""CIFAR-100 by the nearest training images: nothing is trained."""

from transfer.benchmarks import KNN, Benchmark, Protocol


class Cifar100Knn(Benchmark):
    """CIFAR-100 kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="CIFAR-100 kNN",
        framework="classification",
        config="configs/transfer/classification/knn_cifar100.yaml",
        train="cifar100/train",
        test="cifar100/test",
        metrics=KNN,
        headline="knn200/top1",
        trials=1,
    )
