"""FCN-D8 ResNet-50, VOC 2012 + SBD padded after normalisation: 4 devices x 4 images, 20k iterations, DenseCL's protocol."""

_base_ = [
    "_base_/models/fcn_r50-d8.py",
    "_base_/datasets/voc12aug_pad0.py",
    "_base_/schedules/20k.py",
    "_base_/default_runtime.py",
]
