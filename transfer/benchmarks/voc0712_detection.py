"""PASCAL VOC 2007+2012 detection with Faster R-CNN R50-C4, 24k iterations (MoCo, arXiv 1911.05722, table 2)."""

from transfer.benchmarks import BOX, Benchmark, Protocol


class Voc0712Detection(Benchmark):
    """VOC07+12 C4 24k: the field's usual test of transfer; one run's standard deviation is about 0.2 AP."""

    protocol = Protocol(
        title="VOC07+12 C4 24k",
        framework="detectron2",
        config="configs/transfer/detection/faster-rcnn_r50-c4_8xb2-24k_voc0712.yaml",
        train="voc_2007_trainval + voc_2012_trainval",
        test="voc_2007_test",
        metrics=BOX,
        headline="bbox/AP",
        trials=5,
    )
