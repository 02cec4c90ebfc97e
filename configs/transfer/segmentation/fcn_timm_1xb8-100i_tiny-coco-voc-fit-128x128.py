"""Slim FCN on a network of timm, trained and measured on the same fifty COCO images: 1 process x 8 crops, 100 iterations."""

_base_ = [
    "_base_/models/fcn_timm.py",
    "_base_/datasets/tiny_coco_voc.py",
    "_base_/schedules/shapes.py",
    "_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    decode_head=dict(channels=64, num_convs=1, loss_decode=dict(class_weight=[0.15] + [1] * 20)),
    auxiliary_head=None,
)
train_dataloader = dict(batch_size=8)
val_dataloader = dict(dataset=dict(ann_file="ImageSets/Segmentation/train.txt"))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type="PolyLR", eta_min=1e-5, power=0.9, begin=20, end=100, by_epoch=False),
]
train_cfg = dict(max_iters=100, val_interval=100)
auto_scale_lr = dict(base_batch_size=8)
