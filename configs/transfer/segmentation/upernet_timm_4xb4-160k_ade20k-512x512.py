"""UPerNet on a network of timm, ADE20K: 4 devices x 4 images, 160k iterations, MMSegmentation's protocol for a ResNet-50."""

_base_ = [
    "_base_/models/upernet_timm.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/160k.py",
    "_base_/default_runtime.py",
]
