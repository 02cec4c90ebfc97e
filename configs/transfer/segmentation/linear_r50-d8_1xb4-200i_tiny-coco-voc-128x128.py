"""Linear segmentation of frozen ResNet-50 features, a few dozen COCO images: 1 process x 4 images, 200 iterations."""

_base_ = [
    "_base_/models/linear_r50-d8.py",
    "_base_/datasets/tiny_coco_voc.py",
    "_base_/schedules/tiny_coco.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(128, 128)))
