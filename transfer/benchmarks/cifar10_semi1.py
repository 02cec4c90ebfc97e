"""CIFAR-10 by fine-tuning on 1 % of the labels."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Semi1(Benchmark):
    """CIFAR-10 1 % labels: the whole network, 1 % of every class."""

    protocol = Protocol(
        title="CIFAR-10 1 % labels",
        framework="classification",
        config="configs/transfer/classification/semi1-small_cifar10.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("finetune/top1", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
