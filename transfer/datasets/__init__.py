"""Datasets: make, place and check what the benchmarks train and test on. Everything lies under one root
(``core.files.datasets_root()``, that is ``DETECTRON2_DATASETS`` or ``./datasets``).

Kinds of files; makers may import layouts:

- a *layout* (``coco.py``, ``voc.py``, ``cityscapes.py``, ``ade20k.py``, ``class_folders.py``) knows one folder form:
  ``check(folder) -> Counts`` reads every file and raises ``InputError`` naming the first missing folder, missing file or bad
  record and the next step; ``require(folder, splits)`` only looks whether all files are there, before training.
- a *maker* (``shapes.ensure``, ``voc.from_coco``, ``voc.augment``, ``class_folders.unpack_cifar10``) writes a dataset through
  ``files.make_once``: whole or not at all, once however many processes ask, again when what it was made from has changed.
- ``published.py`` is the table of public datasets: addresses, checksums, counts. ``download.py`` fetches and unpacks them.
- ``checking.require(name)`` is what a benchmark calls before it trains.

To add a dataset, add a file with ``check`` (and a function that makes it, if it can be made), list the folder it has under the
root in ``PLACES`` of ``checking.py``, and give ``tools/prepare_data.py`` a subcommand: a public one needs only its line in
``published.SETS`` and the tool's ``FETCHED``.
"""

Counts = dict[str, dict[str, int]]  # split -> what -> how many
