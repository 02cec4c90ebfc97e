"""Sources: the dialects that checkpoints are written in.

To add one, write ``sources/NAME.py`` with a class named like the file that extends ``Source``, and cite where its
layout is documented. A dialect is recognised by what the file holds, never by its name; when two claim a file the user is
asked. A source says where the query backbone is; what its tensors are called is the business of ``core/backbones``.

Wrappers (``module.`` of data-parallel training, ``_orig_mod.`` of torch.compile) are taken off every name before a source
sees it, wherever they stand.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from core.backbones import families
from core.errors import InputError
from core.plugins import find, names

WRAPPERS = ("module", "_orig_mod")
CONTAINERS = ("state_dict", "model", "model_state_dict")  # where training codes keep a network's tensors

# Parts that stand inside an encoder beside its stages; what is left after dropping them must be the backbone, exactly.
HEADS = ("fc.", "classifier.", "head.", "projection_head.", "projector.", "prototypes.", "last_linear.")


class Source(ABC):
    """One dialect: how to recognise it and where its query backbone is."""

    fallback = False  # claims what no other dialect does
    yields_to: tuple[str, ...] = ()  # dialects that read the same tensors from the same places, and name them better

    @classmethod
    @abstractmethod
    def claims(cls, checkpoint: dict[str, Any]) -> bool:
        """Tell whether the file's content is of this dialect."""

    @classmethod
    @abstractmethod
    def split(cls, checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the query backbone under whatever names it has, and every other tensor's name with why it is dropped."""

    @classmethod
    def pretrain(cls, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return what the file says about its pre-training, as plain values."""
        return {}

    @classmethod
    def notes(cls, checkpoint: dict[str, Any]) -> list[str]:
        """Return what a user should know about how the file was read."""
        return []


def detect(checkpoint: dict[str, Any], path: Path | str) -> str:
    """Return the one dialect that claims the file.

    Raises InputError when none does (naming what the file holds) or when several do (listing them).
    """
    members = {name: find(__name__, name) for name in names(__name__)}
    claimed = [name for name, member in members.items() if not member.fallback and member.claims(checkpoint)]
    claimed = [name for name in claimed if not set(members[name].yields_to) & set(claimed)]
    if not claimed:
        claimed = [name for name, member in members.items() if member.fallback and member.claims(checkpoint)]
    if len(claimed) == 1:
        return claimed[0]
    if claimed:
        raise InputError(f"{path} could be of {' or '.join(claimed)}; choose with --source")
    raise InputError(
        f"{path} holds no backbone in a known layout ({describe(checkpoint)}); known: {', '.join(members)}. "
        "Is it a projector or another network?"
    )


def describe(checkpoint: Mapping[str, Any]) -> str:
    """Say in a few words what a file holds: a transformer, only vectors and matrices, or its first keys."""
    tensors = [(name, value) for name, value in flattened(checkpoint).items() if isinstance(value, Tensor)]
    keys = ", ".join(name for name, _ in tensors[:3]) or ", ".join(map(str, list(checkpoint)[:3])) or "none"
    if any(
        word in name for name, _ in tensors for word in ("cls_token", "pos_embed", ".attn.", "self_attn", "attention")
    ):
        return f"a transformer, first keys: {keys}; only ConvNets are carried"
    if tensors and not any(value.ndim == 4 for _, value in tensors):
        return f"no convolution, only a projector or classifier, first keys: {keys}"
    return f"first keys: {keys}"


def unwrapped(name: str) -> str:
    """Take ``module.`` and ``_orig_mod.`` off a tensor's name, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def flattened(checkpoint: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of nested mappings under dotted names."""
    found: dict[str, Any] = {}
    for key, value in checkpoint.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def state(checkpoint: Mapping[str, Any], *containers: str) -> dict[str, Any]:
    """Return the first of the named mappings (default: CONTAINERS) that the file has, or else the file itself."""
    for name in containers or CONTAINERS:
        if isinstance(found := checkpoint.get(name), Mapping):
            return dict(found)
    return dict(checkpoint)


def has(tensors: Mapping[str, Any], *prefixes: str) -> bool:
    """Tell whether each prefix begins the unwrapped name of some tensor."""
    known = {unwrapped(str(name)) for name in tensors}
    return all(any(name.startswith(prefix) for name in known) for prefix in prefixes)


def split_by_prefix(
    tensors: Mapping[str, Any], prefix: str, heads: tuple[str, ...] = HEADS, others: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take what stands under ``prefix`` as the backbone, without ``heads``; say why the rest is dropped.

    ``others`` gives a reason for each prefix of what is not of the backbone. Names are compared and returned unwrapped.
    Raises InputError when two names are the same but for their wrappers.
    """
    backbone: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for key, value in tensors.items():
        full = unwrapped(str(key))
        name = full.removeprefix(prefix)
        if not isinstance(value, Tensor):
            dropped[str(key)] = "not a tensor"
        elif not full.startswith(prefix):
            reasons = [reason for start, reason in (others or {}).items() if full.startswith(start)]
            dropped[str(key)] = reasons[0] if reasons else "not of the query backbone"
        elif name.startswith(heads):
            dropped[str(key)] = "projector or classifier"
        elif name in backbone:
            raise InputError(f"{key} is there twice, with and without a wrapper; save one backbone only")
        else:
            backbone[name] = value
    return backbone, dropped


def prefixes(checkpoint: Mapping[str, Any]) -> list[str]:
    """Return what stands before the first block of each backbone in the file, without wrappers, sorted."""
    marks = [mark for family in families().values() for mark, _ in family.readings().values()]
    known = re.compile(rf"^((?:.*\.)?)(?:{'|'.join(marks)})")
    names = [unwrapped(name) for name, value in flattened(checkpoint).items() if isinstance(value, Tensor)]
    return sorted({match[1] for name in names if (match := known.match(name))})


def plain_values(checkpoint: Mapping[str, Any], method: str, **renamed: str) -> dict[str, Any]:
    """Return ``method`` and those entries of the file (our name = its key) that are numbers or text."""
    found = {ours: checkpoint.get(theirs) for ours, theirs in renamed.items()}
    return {"method": method} | {key: value for key, value in found.items() if isinstance(value, int | float | str)}
