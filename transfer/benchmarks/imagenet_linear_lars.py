"""ImageNet by a linear classifier on the frozen backbone, trained with LARS."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetLinearLars(Benchmark):
    """ImageNet linear LARS: LARS, batches of 4096, the last of 90 epochs counts."""

    protocol = Protocol(
        title="ImageNet linear LARS",
        framework="classification",
        config="configs/transfer/classification/linear-lars-90ep_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
