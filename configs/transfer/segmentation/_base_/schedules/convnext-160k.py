"""160,000 iterations, AdamW, lr 1e-4, warm-up, then polynomial decay: ConvNeXt's (arXiv 2201.03545, app. A.3).

The paper's lr also falls from layer to layer; here all layers have one.
"""

_base_ = ["160k.py"]
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=None,
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, begin=1500, end=160000, eta_min=0.0, by_epoch=False),
]
