"""90,000 iterations of 16 images, SGD, lr 0.01, times 0.1 at 70 % and 90 % (MoCo, arXiv 1911.05722, appendix A.4)."""

_base_ = ["moco-30k.py"]
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [dict(type="MultiStepLR", milestones=[63000, 81000], gamma=0.1, begin=0, end=90000, by_epoch=False)]
train_cfg = dict(max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000))
