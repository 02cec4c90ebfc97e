"""FCN-16s ResNet-50, VOC 2012 + SBD: 8 devices x 2 images, 30k iterations, SlotCon's release."""

_base_ = [
    "_base_/models/fcn-16s_r50-d16.py",
    "_base_/datasets/voc12aug_513_slotcon.py",
    "_base_/schedules/moco-30k.py",
    "_base_/default_runtime.py",
]
# res5 and head as in SlotCon's release: align_corners, the first block of res5 at dilation 1.
model = dict(decode_head=dict(align_corners=True))
