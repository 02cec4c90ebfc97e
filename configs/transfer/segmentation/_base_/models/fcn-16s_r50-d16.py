"""FCN-16s on a ResNet-50 (MoCo, arXiv 1911.05722, appendix): res5 has stride 1 and dilation 2, the head dilation 6.

The first block of res5 keeps dilation 1 (``contract_dilation``), as in torchvision's dilated ResNet: its input has the
spacing it was pre-trained on. No auxiliary head. ``custom_imports`` lets MMSegmentation's own tools find the head.
"""

custom_imports = dict(imports=["transfer.segmentation.heads"], allow_failed_imports=False)
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(513, 513),
    ),
    pretrained=None,
    backbone=dict(
        type="ResNet",
        depth=50,
        base_channels=64,
        stem_channels=64,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 2),
        strides=(1, 2, 2, 1),
        norm_cfg=norm_cfg,
        norm_eval=False,
        frozen_stages=-1,
        style="pytorch",
        contract_dilation=True,
    ),
    decode_head=dict(
        type="FCN16sHead",
        in_channels=2048,
        in_index=3,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
