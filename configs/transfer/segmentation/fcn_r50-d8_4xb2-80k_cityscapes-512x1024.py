"""FCN ResNet-50, output stride 8, Cityscapes: 4 devices x 2 images, 80k iterations, MMSegmentation's protocol."""

_base_ = [
    "_base_/models/fcn_r50-d8.py",
    "_base_/datasets/cityscapes.py",
    "_base_/schedules/80k.py",
    "_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
auto_scale_lr = dict(base_batch_size=8)
