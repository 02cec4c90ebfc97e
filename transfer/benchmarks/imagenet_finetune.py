"""ImageNet by fine-tuning on all labels."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetFinetune(Benchmark):
    """ImageNet fine-tuning: the whole network."""

    protocol = Protocol(
        title="ImageNet fine-tuning",
        framework="classification",
        config="configs/transfer/classification/finetune-20ep_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=("finetune/top1", "finetune/top5", "finetune/best_top1"),
        headline="finetune/top1",
        trials=3,
    )
