"""FCN-16s on a ResNet-50 (MoCo, arXiv 1911.05722, appendix): res5 has stride 1 and dilation 2, the head dilation 6.

The first block of res5 keeps dilation 1 (``contract_dilation``), as in torchvision's dilated ResNet: its input has the
spacing it was pre-trained on. No auxiliary head. ``custom_imports`` lets MMSegmentation's own tools find the head.
"""

_base_ = ["fcn_r50-d8.py"]
custom_imports = dict(imports=["transfer.frameworks.mmseg.heads"], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(513, 513)),
    backbone=dict(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),
    decode_head=dict(
        _delete_=True,
        type="FCN16sHead",
        in_channels=2048,
        in_index=3,
        num_classes=21,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
