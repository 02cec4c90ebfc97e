"""PASCAL VOC 2007 detection with Faster R-CNN R50-C4, 9k iterations (MoCo's release; SimSiam, arXiv 2011.10566, table 5)."""

from transfer.benchmarks import BOX, Benchmark, Protocol


class Voc07Detection(Benchmark):
    """VOC07 C4: the protocol of VOC07+12 on a third of the images, 9k iterations."""

    protocol = Protocol(
        title="VOC07 C4",
        framework="detectron2",
        config="configs/transfer/detection/faster-rcnn_r50-c4_8xb2-9k_voc07.yaml",
        train="voc_2007_trainval",
        test="voc_2007_test",
        metrics=BOX,
        headline="bbox/AP",
        trials=5,
    )
