"""FCN ResNet-50, output stride 8, Cityscapes: 4 devices x 2 images, 40k iterations, crops of 769, tested by sliding windows."""

_base_ = [
    "_base_/models/fcn_r50-d8.py",
    "_base_/datasets/cityscapes_769.py",
    "_base_/schedules/40k.py",
    "_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    decode_head=dict(num_classes=19, align_corners=True),
    auxiliary_head=dict(num_classes=19, align_corners=True),
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)
auto_scale_lr = dict(base_batch_size=8)
