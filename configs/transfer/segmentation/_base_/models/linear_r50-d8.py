"""One 1x1 convolution on the last stage of a frozen ResNet-50 of output stride 8: what its features say of each place.

VICRegL (arXiv 2210.01571, segmentation/) has a SyncBN and dropout before the convolution; here is nothing else that learns.
"""

_base_ = ["fcn_r50-d8.py"]
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=2048,
        in_index=3,
        channels=2048,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=21,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
