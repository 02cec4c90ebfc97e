"""ImageNet by fine-tuning on 1 % of the labels."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetSemi1(Benchmark):
    """ImageNet 1 % labels: the whole network, 1 % of every class."""

    protocol = Protocol(
        title="ImageNet 1 % labels",
        framework="classification",
        config="configs/transfer/classification/semi1-20ep_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=("finetune/top1", "finetune/top5", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
