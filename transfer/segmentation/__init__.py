"""Train and measure a segmentation network on MMSegmentation with a converted backbone.

`runner.run` is the one entry point (``tools/train_seg.py`` calls it). `compat` holds every workaround the frameworks
need, `injection` makes config and weights file agree, `devices` scales the protocol to the devices at hand, `data`
checks the dataset before anything starts, `hooks` loads, logs and draws during training, `metric` scores per class.
"""
