"""Sources: the dialects that checkpoints are written in.

To add one, write ``transfer/sources/NAME.py`` with a class named like the file that extends ``Source``. A dialect is
recognised by what the file holds, never by its name; when two claim a file the user is asked.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import InputError
from core.plugins import find, names


class Source(ABC):
    """One dialect: how to recognise it and where its query backbone is."""

    @classmethod
    @abstractmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Tell whether the file's content is of this dialect."""

    @classmethod
    @abstractmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the query backbone with torchvision's names, and every other tensor's name with why it is dropped."""

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return what the file says about its pre-training, as plain values."""
        return {}


def detect(checkpoint: dict[str, Any], path: Path | str) -> str:
    """Return the one dialect that claims the file.

    Raises InputError when none does (naming what the file holds) or when several do (listing them).
    """
    claimed = [name for name in names(__name__) if find(__name__, name).claims(checkpoint)]
    if len(claimed) == 1:
        return claimed[0]
    if claimed:
        raise InputError(f"{path} could be of {' or '.join(claimed)}; choose with --source")
    keys = list(checkpoint.get("state_dict", checkpoint))[:3]
    raise InputError(
        f"{path} holds no backbone in a known layout (first keys: {', '.join(map(str, keys)) or 'none'}); "
        f"known: {', '.join(names(__name__))}. Is it a projector or another network?"
    )


def split_by_prefix(
    tensors: dict[str, Any], prefix: str, head: str = "fc."
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take what stands under ``prefix`` as the backbone, without ``head``; say why the rest is dropped."""
    backbone: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for key, value in tensors.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix):
            dropped[key] = "not of the query backbone"
        elif name.startswith(head):
            dropped[key] = "projector or classifier"
        elif isinstance(value, Tensor):
            backbone[name] = value
    return backbone, dropped
