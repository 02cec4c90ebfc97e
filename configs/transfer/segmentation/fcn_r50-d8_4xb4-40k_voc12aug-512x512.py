"""FCN ResNet-50, output stride 8, VOC 2012 + SBD: 4 devices x 4 images, 40k iterations, MMSegmentation's protocol."""

_base_ = [
    "_base_/models/fcn_r50-d8.py",
    "_base_/datasets/voc12aug.py",
    "_base_/schedules/40k.py",
    "_base_/default_runtime.py",
]
