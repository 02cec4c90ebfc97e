"""FCN-16s ResNet-50, Cityscapes: 8 devices x 2 images, 90k iterations, to the letter of MoCo's appendix."""

_base_ = [
    "_base_/models/fcn-16s_r50-d16_moco.py",
    "_base_/datasets/cityscapes_769_moco.py",
    "_base_/schedules/moco-90k.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(769, 769)), decode_head=dict(num_classes=19))
