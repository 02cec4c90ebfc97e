"""Linear segmentation of a frozen slim ResNet-18's features, embedded set: 1 process x 16 crops, 280 iterations."""

_base_ = [
    "_base_/models/linear_r50-d8.py",
    "_base_/datasets/shapes.py",
    "_base_/schedules/shapes.py",
    "_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(depth=18, base_channels=16, stem_channels=16, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
    decode_head=dict(
        in_channels=[32, 64, 128],
        in_index=[1, 2, 3],
        input_transform="resize_concat",
        channels=224,
        num_classes=9,
        loss_decode=dict(
            class_weight=[0.15, 1, 1, 1, 1, 1, 1, 1, 1]
        ),  # as in fcn_r18w16-d32: nine pixels in ten are background
    ),
)
