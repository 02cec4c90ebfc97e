"""CIFAR-10 at 64 px by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Linear64(Benchmark):
    """CIFAR-10 64 px linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="CIFAR-10 64 px linear",
        framework="classification",
        config="configs/transfer/classification/linear-cached-100ep_cifar10-64.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("linear/top1", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
