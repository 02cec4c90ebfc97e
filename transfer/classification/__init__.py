"""The framework ``classification``: how well a frozen or fine-tuned backbone names images.

``runner`` reads a config, loads the weights and calls a task (``tasks/``: kNN, linear probe, fine-tuning) on labelled
images (``data/``); ``features`` makes frozen features and caches them, ``training`` is the loop that linear probes and
fine-tuning share, ``frozen`` proves that a backbone did not change.
"""
