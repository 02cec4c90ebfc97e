"""FCN on a network of timm, VOC 2012 + SBD: 4 devices x 4 images, 20k iterations, MMSegmentation's protocol for a ResNet-50."""

_base_ = [
    "_base_/models/fcn_timm.py",
    "_base_/datasets/voc12aug.py",
    "_base_/schedules/20k.py",
    "_base_/default_runtime.py",
]
