"""CIFAR-10 by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Linear(Benchmark):
    """CIFAR-10 linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="CIFAR-10 linear",
        framework="classification",
        config="configs/transfer/classification/linear-cached-100ep_cifar10.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("linear/top1", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
