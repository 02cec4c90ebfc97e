"""CIFAR-100 by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar100Linear(Benchmark):
    """CIFAR-100 linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="CIFAR-100 linear",
        framework="classification",
        config="configs/transfer/classification/linear-cached-100ep_cifar100.yaml",
        train="cifar100/train",
        test="cifar100/test",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
