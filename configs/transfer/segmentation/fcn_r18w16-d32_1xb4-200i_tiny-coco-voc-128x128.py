"""Slim FCN ResNet-18 on a few dozen real images: 1 device x 4 images, 200 iterations; for two CPU cores."""

_base_ = [
    "_base_/models/fcn_r18w16-d32.py",
    "_base_/datasets/tiny_coco_voc.py",
    "_base_/schedules/tiny_coco.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(128, 128)))
