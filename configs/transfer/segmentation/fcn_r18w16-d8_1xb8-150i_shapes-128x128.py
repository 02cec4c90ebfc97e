"""Slim FCN ResNet-18 on the embedded set: 1 device x 8 images, 150 iterations; made for two CPU cores."""

_base_ = [
    "_base_/models/fcn_r18w16-d8.py",
    "_base_/datasets/shapes.py",
    "_base_/schedules/shapes.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(128, 128)), decode_head=dict(num_classes=9))
