"""ImageNet by fine-tuning on 10 % of the labels."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetSemi10(Benchmark):
    """ImageNet 10 % labels: the whole network, 10 % of every class."""

    protocol = Protocol(
        title="ImageNet 10 % labels",
        framework="classification",
        config="configs/transfer/classification/semi10-20ep_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=("finetune/top1", "finetune/top5", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
