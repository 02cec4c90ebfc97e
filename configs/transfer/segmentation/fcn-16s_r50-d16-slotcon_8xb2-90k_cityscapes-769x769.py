"""FCN-16s ResNet-50, Cityscapes: 8 devices x 2 images, 90k iterations, SlotCon's release."""

_base_ = [
    "_base_/models/fcn-16s_r50-d16.py",
    "_base_/datasets/cityscapes_769_slotcon.py",
    "_base_/schedules/moco-90k.py",
    "_base_/default_runtime.py",
]
# res5 and head as in SlotCon's release: align_corners, the first block of res5 at dilation 1.
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    decode_head=dict(num_classes=19, align_corners=True),
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)
