"""UPerNet ConvNeXt-T, ADE20K: 4 devices x 4 images, 160k iterations, AdamW."""

_base_ = [
    "_base_/models/upernet_convnext-t.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/convnext-160k.py",
    "_base_/default_runtime.py",
]
