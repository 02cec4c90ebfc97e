"""PASCAL VOC 2012 with SBD's extra masks: train + aug (10,582 images) to train, val (1,449) to measure; crops of 513 (MoCo)."""

_base_ = ["voc12aug.py"]
dataset_type = "PascalVOCDataset"
data_root = "{{$DETECTRON2_DATASETS:datasets}}/VOC2012"
crop_size = (513, 513)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(
        type="RandomResize", scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True
    ),  # the longer side of VOC's images is 500
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=crop_size),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),  # no Resize: measured at the images' own size
    dict(type="PackSegInputs"),
]
train_set = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
    ann_file="ImageSets/Segmentation/train.txt",
    pipeline=train_pipeline,
)
aug_set = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassAug"),
    ann_file="ImageSets/Segmentation/aug.txt",
    pipeline=train_pipeline,
)
train_dataloader = dict(batch_size=2, dataset=dict(datasets=[train_set, aug_set]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
