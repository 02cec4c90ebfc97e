"""Slim FCN ResNet-18, trained and measured on the same fifty real images: 1 device x 8 crops of 128 px, 280 iterations.

How fast a backbone fits: on other images, background everywhere is what so few examples of twenty classes teach.
"""

_base_ = [
    "_base_/models/fcn_r18w16-d32.py",
    "_base_/datasets/tiny_coco_voc.py",
    "_base_/schedules/shapes.py",
    "_base_/default_runtime.py",
]
train_dataloader = dict(batch_size=8)
val_dataloader = dict(dataset=dict(ann_file="ImageSets/Segmentation/train.txt"))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    decode_head=dict(
        # Without weights a short schedule ends with background everywhere, whatever the backbone.
        loss_decode=dict(class_weight=[0.15] + [1] * 20),
    ),
)
