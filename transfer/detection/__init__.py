"""Train and measure a detector on a converted backbone, with Detectron2.

`run.main` is the one entry point (``tools/train_net.py`` calls it). `compat` holds every workaround Detectron2 needs,
`injection` makes config and weights file agree, `devices` scales the protocol to the devices at hand, `datasets` names
and checks the data, `parts` registers what the configs name beyond Detectron2, `checkpoint` loads and proves the
loading, `trainer` trains, `evaluators` scores, `drawing` shows a few results.
"""
