"""Linear segmentation of the frozen features of a network of timm, fifty COCO images: 1 process x 8 crops, 150 iterations."""

_base_ = ["fcn_timm_1xb8-150i_tiny-coco-voc-128x128.py"]
model = dict(
    backbone=dict(frozen_stages=4, norm_eval=True),
    decode_head=dict(channels=None, num_convs=0, concat_input=False, dropout_ratio=0.0),
)
optim_wrapper = dict(optimizer=dict(lr=0.005))
