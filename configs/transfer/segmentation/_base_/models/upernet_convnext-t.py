"""UPerNet (arXiv 1807.10221) on ConvNeXt-T: the module of transfer/segmentation/convnext.py, heads as in MMSegmentation."""

_base_ = ["upernet_r50.py"]
custom_imports = dict(imports=["transfer.frameworks.mmseg.backbones"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type="ConvNeXt",
        blocks=(3, 3, 9, 3),
        width=96,
        out_indices=(0, 1, 2, 3),
        drop_path=0.4,  # ConvNeXt-T's (arXiv 2201.03545, app. A.3)
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
