"""UPerNet (arXiv 1807.10221) on any network of timm; the weights name it, and channels follow; heads as in MMSegmentation."""

_base_ = ["upernet_r50.py"]
custom_imports = dict(imports=["transfer.frameworks.mmseg.backbones"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type="Timm",
        model="",
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    decode_head=dict(in_channels=None),
    auxiliary_head=dict(in_channels=None),
)
