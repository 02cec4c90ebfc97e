"""ImageNet by a linear classifier on the frozen backbone."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetLinear(Benchmark):
    """ImageNet linear: SGD, 100 epochs, the last counts."""

    protocol = Protocol(
        title="ImageNet linear",
        framework="classification",
        config="configs/transfer/classification/linear-sgd-100ep_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=("linear/top1", "linear/top5", "linear/best_top1"),
        headline="linear/top1",
        trials=3,
    )
