"""FCN-16s ResNet-50 (MoCo's protocol) on a few dozen real images: 1 device x 4 images, 200 iterations; proves the path."""

_base_ = [
    "_base_/models/fcn-16s_r50-d16.py",
    "_base_/datasets/tiny_coco_voc.py",
    "_base_/schedules/tiny_coco.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(128, 128)))
