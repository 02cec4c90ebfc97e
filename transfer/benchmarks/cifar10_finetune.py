"""CIFAR-10 by fine-tuning on all labels."""

from transfer.benchmarks import Benchmark, Protocol


class Cifar10Finetune(Benchmark):
    """CIFAR-10 fine-tuning: the whole network."""

    protocol = Protocol(
        title="CIFAR-10 fine-tuning",
        framework="classification",
        config="configs/transfer/classification/finetune-small_cifar10.yaml",
        train="cifar10/train",
        test="cifar10/test",
        metrics=("finetune/top1", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
