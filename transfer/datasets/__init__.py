"""Datasets: make, place and check what the benchmarks train and test on. Everything lies under one root
(``core.files.datasets_root()``, that is ``DETECTRON2_DATASETS`` or ``./datasets``).

Two kinds of files, and makers may import layouts:

- a *layout* (``coco.py``, ``voc.py``) knows one folder form: it reads and writes it, and ``check(folder) -> Counts`` raises
  ``InputError`` naming the first missing folder, missing file or bad record and the next step.
- a *maker* (``shapes.py``, ``coco_to_voc.py``, ``cifar10.py``) writes a dataset through ``folders.make_once``: whole or not
  at all, once however many processes ask, again when what it was made from has changed.

To add a dataset, add a file with ``check`` (and a function that makes it, if it can be made), list the folder it has under the
root in ``PLACES`` of ``checking.py``, and give ``tools/prepare_data.py`` a subcommand if it is made.
"""

Counts = dict[str, dict[str, int]]  # split -> what -> how many
