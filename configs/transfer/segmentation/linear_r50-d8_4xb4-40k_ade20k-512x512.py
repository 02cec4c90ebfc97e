"""Linear segmentation of frozen ResNet-50 features, ADE20K: 4 devices x 4 images, 40k iterations."""

_base_ = [
    "_base_/models/linear_r50-d8.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/40k.py",
    "_base_/default_runtime.py",
]
model = dict(decode_head=dict(num_classes=150))
