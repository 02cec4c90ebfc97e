"""FCN on a slim ResNet-18 (16 planes in stem and res2), small enough for two CPU cores.

Not dilated: layer4 at output stride 8 costs as much as all the rest. The head reads three stages at stride 8 instead,
which at equal CPU time scored higher on the embedded set.
"""

_base_ = ["fcn_r50-d8.py"]
model = dict(
    backbone=dict(depth=18, base_channels=16, stem_channels=16, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)),
    decode_head=dict(
        in_channels=[32, 64, 128],
        in_index=[1, 2, 3],
        input_transform="resize_concat",
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
    ),
    auxiliary_head=None,
)
