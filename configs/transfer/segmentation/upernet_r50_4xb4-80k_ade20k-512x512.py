"""UPerNet ResNet-50, ADE20K: 4 devices x 4 images, 80k iterations, MMSegmentation's protocol."""

_base_ = [
    "_base_/models/upernet_r50.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/80k.py",
    "_base_/default_runtime.py",
]
