"""ImageNet-100 by a linear classifier on the frozen backbone, trained with LARS."""

from transfer.benchmarks import Benchmark, Protocol


class Imagenet100LinearLars(Benchmark):
    """ImageNet-100 linear LARS: LARS, batches of 4096, the last of 90 epochs counts."""

    protocol = Protocol(
        title="ImageNet-100 linear LARS",
        framework="classification",
        config="configs/transfer/classification/linear-lars-90ep_imagenet100.yaml",
        train="imagenet100/train",
        test="imagenet100/val",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
