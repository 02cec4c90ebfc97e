"""Imported first by every script here: ``core``, ``pretrain`` and ``transfer`` are those of the checkout that the script lies in,
whichever checkout the environment was installed from."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
