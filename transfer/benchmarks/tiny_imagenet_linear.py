"""Tiny-ImageNet by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class TinyImagenetLinear(Benchmark):
    """Tiny-ImageNet linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="Tiny-ImageNet linear",
        framework="classification",
        config="configs/transfer/classification/linear-cached-100ep_tiny-imagenet.yaml",
        train="tiny-imagenet-200/train",
        test="tiny-imagenet-200/val",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
