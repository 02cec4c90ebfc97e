"""UPerNet ResNet-50, ADE20K: 4 devices x 4 images, 160k iterations, MMSegmentation's protocol."""

_base_ = [
    "_base_/models/upernet_r50.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/160k.py",
    "_base_/default_runtime.py",
]
