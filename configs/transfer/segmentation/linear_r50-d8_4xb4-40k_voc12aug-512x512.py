"""Linear segmentation of frozen ResNet-50 features, VOC 2012 + SBD: 4 devices x 4 images, 40k iterations."""

_base_ = [
    "_base_/models/linear_r50-d8.py",
    "_base_/datasets/voc12aug_pad0.py",
    "_base_/schedules/40k.py",
    "_base_/default_runtime.py",
]
