"""30,000 iterations of 16 images, SGD, lr 0.003, times 0.1 at 70 % and 90 % (MoCo, arXiv 1911.05722, appendix)."""

_base_ = ["20k.py"]
optim_wrapper = dict(optimizer=dict(lr=0.003, weight_decay=0.0001))
param_scheduler = [dict(type="MultiStepLR", milestones=[21000, 27000], gamma=0.1, begin=0, end=30000, by_epoch=False)]
train_cfg = dict(max_iters=30000, val_interval=3000)
default_hooks = dict(checkpoint=dict(interval=3000))
