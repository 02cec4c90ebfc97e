"""ImageNet-100 by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class Imagenet100Linear(Benchmark):
    """ImageNet-100 linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="ImageNet-100 linear",
        framework="classification",
        config="configs/transfer/classification/linear-sgd-100ep_imagenet100.yaml",
        train="imagenet100/train",
        test="imagenet100/val",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
