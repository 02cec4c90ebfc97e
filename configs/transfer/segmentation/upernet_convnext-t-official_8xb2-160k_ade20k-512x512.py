"""UPerNet ConvNeXt-T, ADE20K: 8 devices x 2 images, 160k iterations, AdamW; ConvNeXt's release."""

_base_ = [
    "_base_/models/upernet_convnext-t.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/convnext-160k.py",
    "_base_/default_runtime.py",
]
# semantic_segmentation/configs/convnext/upernet_convnext_tiny_512_160k_ade20k_ss.py: an lr that falls by 0.9 from stage to stage,
# no weight decay of norms and biases, and a test by sliding windows.
model = dict(test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)))
optim_wrapper = dict(
    constructor="LearningRateDecayOptimizerConstructor",
    paramwise_cfg=dict(_delete_=True, decay_rate=0.9, decay_type="stage_wise", num_layers=6),
)
train_dataloader = dict(batch_size=2)
