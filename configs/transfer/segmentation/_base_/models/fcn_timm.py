"""FCN on any network of timm with feature maps of strides 4 to 32, not dilated; the weights name the network.

Its head reads the last three stages at stride 8, since the fourth alone is at stride 32; channels follow from the weights.
"""

_base_ = ["fcn_r50-d8.py"]
custom_imports = dict(imports=["transfer.frameworks.mmseg.backbones"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type="Timm",
        model="",
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    decode_head=dict(in_channels=None, in_index=[1, 2, 3], input_transform="resize_concat"),
    auxiliary_head=dict(in_channels=None),
)
