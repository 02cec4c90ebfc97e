"""CIFAR-10 by fine-tuning on 10 % of the labels."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Semi10(Benchmark):
    """CIFAR-10 10 % labels: the whole network, 10 % of every class."""

    protocol = Protocol(
        title="CIFAR-10 10 % labels",
        framework="classification",
        config="configs/transfer/classification/semi10-small_cifar10.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("finetune/top1", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
