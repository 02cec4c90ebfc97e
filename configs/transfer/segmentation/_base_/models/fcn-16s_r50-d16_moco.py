"""FCN-16s to the letter of MoCo's appendix A.4: all 3x3 convolutions of res5 have dilation 2, the first block's too.

In fcn-16s_r50-d16.py, as in SlotCon's release and in torchvision's dilated ResNet, the first block keeps dilation 1.
"""

_base_ = ["fcn-16s_r50-d16.py"]
model = dict(backbone=dict(multi_grid=(2, 2, 2)))
