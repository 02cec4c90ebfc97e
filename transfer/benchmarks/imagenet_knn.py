"""ImageNet by the nearest training images: nothing is trained."""

from transfer.benchmarks import KNN, Benchmark, Protocol


class ImagenetKnn(Benchmark):
    """ImageNet kNN: frozen features, k nearest by cosine, weighted votes."""

    protocol = Protocol(
        title="ImageNet kNN",
        framework="classification",
        config="configs/transfer/classification/knn_imagenet.yaml",
        train="imagenet/train",
        test="imagenet/val",
        metrics=KNN,
        headline="knn200/top1",
        trials=1,
    )
