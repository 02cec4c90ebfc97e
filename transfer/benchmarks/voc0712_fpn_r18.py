"""PASCAL VOC 2007+2012 detection with Faster R-CNN R18-FPN: the way for basic blocks (FPN, arXiv 1612.03144)."""

from transfer.benchmarks import BOX, Benchmark, Protocol


class Voc0712FpnR18(Benchmark):
    """VOC07+12 FPN R18: MoCo's schedule for VOC; not comparable with C4."""

    protocol = Protocol(
        title="VOC07+12 FPN R18",
        framework="detectron2",
        config="configs/transfer/detection/faster-rcnn_r18-fpn_8xb2-24k_voc0712.yaml",
        train="voc_2007_trainval + voc_2012_trainval",
        test="voc_2007_test",
        metrics=BOX,
        headline="bbox/AP",
        trials=5,
    )
