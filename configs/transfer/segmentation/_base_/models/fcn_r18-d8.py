"""FCN on a ResNet-18 of output stride 8, with heads a quarter as wide as ResNet-50's."""

_base_ = ["fcn_r50-d8.py"]
model = dict(
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64),
)
