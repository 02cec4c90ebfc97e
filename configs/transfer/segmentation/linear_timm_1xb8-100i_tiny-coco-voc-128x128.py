"""Linear segmentation of the frozen features of a network of timm, fifty COCO images: 1 process x 8 crops, 100 iterations."""

_base_ = ["fcn_timm_1xb8-100i_tiny-coco-voc-fit-128x128.py"]
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    decode_head=dict(channels=None, num_convs=0, concat_input=False, dropout_ratio=0.0),
)
val_dataloader = dict(dataset=dict(ann_file="ImageSets/Segmentation/val.txt"))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.005))
