"""FCN on a slim ResNet-18 (16 planes in stem and res2) of output stride 8: small enough for two CPU cores."""

_base_ = ["fcn_r50-d8.py"]
model = dict(
    backbone=dict(depth=18, base_channels=16, stem_channels=16),
    decode_head=dict(in_channels=128, channels=64, num_convs=1, concat_input=False, dropout_ratio=0.0),
    auxiliary_head=None,
)
