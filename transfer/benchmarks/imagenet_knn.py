"""ImageNet by the nearest training images: nothing is trained."""

from transfer.benchmarks import Benchmark, Protocol


class ImagenetKnn(Benchmark):
    """ImageNet kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="ImageNet kNN",
        framework="classification",
        config="configs/transfer/classification/knn_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=(
            "knn20/top1",
            "knn20/top5",
            "knn200/top1",
            "knn200/top5",
            "knn20-0.1/top1",
            "knn20-0.1/top5",
            "knn200-0.1/top1",
            "knn200-0.1/top5",
        ),
        headline="knn200/top1",
        trials=1,
    )
