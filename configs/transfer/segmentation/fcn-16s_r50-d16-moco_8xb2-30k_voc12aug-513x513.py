"""FCN-16s ResNet-50, VOC 2012 + SBD: 8 devices x 2 images, 30k iterations, to the letter of MoCo's appendix."""

_base_ = [
    "_base_/models/fcn-16s_r50-d16_moco.py",
    "_base_/datasets/voc12aug_513_moco.py",
    "_base_/schedules/moco-30k.py",
    "_base_/default_runtime.py",
]
