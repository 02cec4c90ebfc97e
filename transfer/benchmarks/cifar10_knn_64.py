"""CIFAR-10 at 64 px by the nearest training images: nothing is trained."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Knn64(Benchmark):
    """CIFAR-10 64 px kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="CIFAR-10 64 px kNN",
        framework="classification",
        config="configs/transfer/classification/knn_cifar10-64.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("knn20/top1", "knn200/top1", "knn20-0.1/top1", "knn200-0.1/top1"),
        headline="knn200/top1",
        trials=3,
    )
