"""Read a checkpoint: which dialect it is written in, where its backbone is, which network that is, and that it is whole."""

import dataclasses
import difflib
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from core.backbones import Backbone, families, timm, without_values
from core.backbones.resnet import ResNet
from core.backbones.timm import Timm
from core.errors import InputError
from core.files import FileError
from core.weights_file import read_weights_file, whole
from transfer.convert import origin
from transfer.convert.dialects import DIALECTS, FORMER, HEAD, Dialect, Mark
from transfer.convert.recipe import TEXT

# of data-parallel training, torch.compile, FSDP, activation checkpointing; they may stand anywhere in a name
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
COUNTER = "num_batches_tracked"  # a counter, not a weight; no framework's file carries it
TEMPORARY = re.compile(r"(^|\.)(n_averaged|_tmp_\w+)$")  # of averaged models and synchronised norms
NORM = re.compile(
    r"((out_|hidden_states_)?norms?\d?|layer_?norm)\."
)  # of detectors, DINOv3 and transformers' backbones
BY_NAME = "timm"  # the dialect of files that only the name of their network explains
UNNAMED = ("torchvision", "timm", "plain")  # dialects of files that hold tensors and no more
TRANSFORMER = re.compile(r"cls_token|pos_embed|\.attn\.|self_attn|attention")


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A whole backbone in fp32 under our names, in our order; what was dropped and why; what the user should know."""

    family: type[Backbone]
    config: Any
    naming: str
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    notes: list[str]
    dialect: str = ""
    pretrain: dict[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the recipe, where the file says them

    @property
    def arch(self) -> str:
        """Return the network's short name."""
        return self.family.arch(self.config)

    def as_rgb(self) -> "Recognised":
        """Return the same network for RGB images: the channels of its first convolution in the other order."""
        first = next(name for name, tensor in self.tensors.items() if tensor.ndim == 4)
        facts = {key: value[::-1] if key in ("mean", "std") else value for key, value in self.facts.items()}
        return dataclasses.replace(
            self,
            tensors=self.tensors | {first: self.tensors[first].flip(1).contiguous()},
            facts=facts | {"channel_order": "RGB"},
            notes=[*self.notes, f"the channels of {first} are in the order RGB now; they were BGR"],
        )


class Contents:
    """What a checkpoint holds, as dialects look at it."""

    def __init__(self, checkpoint: Mapping[str, Any], path: Path | str) -> None:
        self.checkpoint, self.path = checkpoint, path
        self._views: dict[str, Tensors] = {}

    def within(self, places: Iterable[str]) -> "Tensors":
        """Return the tensors in the first of the entries that is there, or in the whole file."""
        place = next((place for place in places if isinstance(self.entry(place), Mapping)), "")
        if place not in self._views:
            self._views[place] = Tensors(self.entry(place) if place else self.checkpoint)
        return self._views[place]

    @cached_property
    def whole(self) -> "Tensors":
        """Return all tensors of the file."""
        return self.within(())

    def entry(self, place: str) -> Any:
        """Return what stands at a dotted place, or None."""
        if place in self.checkpoint:
            return self.checkpoint[place]
        found: Any = self.checkpoint
        for key in place.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def claimed(self, row: Dialect) -> bool:
        """Tell whether the file is of this dialect."""
        backbones = len(self.whole.prefixes) if row.fallback or row.alone else 1
        if (row.fallback and backbones == 0) or (row.alone and backbones > 1):
            return False
        return any(self._marked(mark, row) for mark in row.marks)

    def _marked(self, mark: Mark, row: Dialect) -> bool:
        if any(key in self.checkpoint for key in mark.absent):
            return False
        for key, values in mark.keys.items():
            if key not in self.checkpoint or (values and self.checkpoint[key] not in values):
                return False
        tensors = self.within(row.within)
        return all(map(tensors.has, mark.names)) and not any(map(tensors.has, mark.never))


class Tensors:
    """Tensors by their dotted names without wrappers; expressions are matched at the beginning of a name."""

    def __init__(self, tree: Mapping[Any, Any]) -> None:
        self.items = [(key, unwrapped(key), value) for key, value in flattened(tree).items()]
        self._text = "".join(f"{name}\n" for _, name, _ in self.items)

    def has(self, expression: str) -> bool:
        """Tell whether a tensor's name begins so."""
        return re.search(f"(?m)^(?:{expression})", self._text) is not None

    @cached_property
    def prefixes(self) -> list[str]:
        """Return what stands before the first block of each backbone, sorted."""
        return prefixes(name for _, name, _ in self.items)


def read(path: Path | str, dialect: str = "auto", arch: str = "auto") -> Recognised:
    """Read the backbone of a checkpoint; raise InputError (FileError for the file itself) with the reason and the next step.

    ``arch`` is the network that it must be; it also tells networks apart whose tensors have the same names and shapes.
    """
    contents = Contents(read_weights_file(path), path)
    named = arch if arch != "auto" else origin.name(contents.checkpoint, whole(path))
    name = detect(contents, named) if dialect == "auto" else dialect
    row = find(name)
    by_name = row.name == BY_NAME and timm.known(named) and not contents.claimed(row)
    backbone, dropped = _by_name(contents, named) if by_name else split(contents, row, name)
    said = origin.of(contents.checkpoint, {key: t for key, _, t in contents.whole.items}, backbone, whole(path))
    found = recognise(backbone, path, named)
    if arch not in ("auto", found.arch):
        raise InputError(f"{path} holds a {found.arch}, not a {arch}; leave --arch out or give the right file")
    facts = dict(said.facts)
    if facts.pop("stride_in_1x1", False) and found.family is ResNet:
        found = dataclasses.replace(found, config=found.config.model_copy(update={"stride_in_1x1": True}))
    unsaid = [] if arch != "auto" or row.name not in UNNAMED or said.arch or said.facts else [_assumed(found)]
    if row.name == "detectron2" and not said.facts and found.family is ResNet:
        unsaid = ["a Detectron2 file does not tell where its stride is: taken as STRIDE_IN_1X1 False, and RGB"]
    return dataclasses.replace(
        found,
        dialect=name,
        dropped=dropped | found.dropped,
        notes=[*found.notes, *_told(row, contents), *said.notes, *unsaid],
        pretrain=_pretrain(contents, row),
        facts=facts,
    )


def _told(row: Dialect, contents: Contents) -> list[str]:
    """Return what a user should know about how the file was read."""
    student = next((prefix for prefix in contents.whole.prefixes if "student" in prefix), "")
    return [row.note.format(student=student)] if row.note and (student or "{student}" not in row.note) else []


def _assumed(found: Recognised) -> str:
    twins = "; timm's resnetaa50 and resnetblur50 have a ResNet-50's names and shapes" if found.family is ResNet else ""
    return f"the file does not name its architecture: {found.arch} is assumed (--arch says another){twins}"


def detect(contents: Contents, arch: str = "") -> str:
    """Return the one dialect that claims the file; raise InputError when none does or several do.

    A file that none claims may still hold the network ``arch`` of timm's.
    """
    claimed = [row for row in DIALECTS.values() if not row.fallback and contents.claimed(row)]
    names = {row.name for row in claimed}
    claimed = [row for row in claimed if not names & set(row.yields_to)]
    claimed = claimed or [row for row in DIALECTS.values() if row.fallback and contents.claimed(row)]
    if len(claimed) == 1:
        return claimed[0].name
    if claimed:
        raise InputError(
            f"{contents.path} could be of {' or '.join(row.name for row in claimed)}; choose with --source"
        )
    if timm.known(arch) and _by_name(contents, arch)[0]:
        return BY_NAME
    raise InputError(
        f"{contents.path} holds no backbone in a known layout ({describe(contents)}); known: {', '.join(DIALECTS)}. "
        "Is it a projector or another network?"
    )


def _by_name(contents: Contents, arch: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the tensors that have the names of timm's network ``arch``, under whatever prefix the first of them has."""
    names = [name.removeprefix("network.") for name in Timm.names(arch)]
    there = [name for _, name, _ in contents.whole.items if f".{name}".endswith(f".{names[0]}")]
    prefix = min(there, key=len, default="").removesuffix(names[0])
    held = {
        name: (key, t) for key, full, t in contents.whole.items if (name := full.removeprefix(prefix)) in set(names)
    }
    backbone = {name: t for name, (_, t) in held.items()}
    kept = {key for key, _ in held.values()}
    dropped = {key: "not of the network" for key, _, _ in contents.whole.items if key not in kept}
    return (backbone, dropped) if len(backbone) >= len(names) else ({}, {})


def find(dialect: str) -> Dialect:
    """Return the row of ``NAME``, ``plain:PREFIX`` or ``package.module:NAME``; raise InputError listing what there is."""
    name, colon, rest = dialect.partition(":")
    if name in DIALECTS:
        if colon and name != "plain":
            raise InputError(f"--source {dialect}: only plain takes a prefix, as in plain:{rest}")
        return DIALECTS[name]
    if not colon:
        close = FORMER.get(name) or "".join(difflib.get_close_matches(name, DIALECTS, n=1))
        hint = f" (did you mean {close!r}?)" if close else ""
        raise InputError(f"no dialect {name!r}; there are: {', '.join(DIALECTS)}, and package.module:NAME{hint}")
    try:
        row = getattr(importlib.import_module(name), rest, None)
    except ImportError as error:
        raise InputError(f"--source {dialect}: {error}; is its folder on PYTHONPATH?") from error
    if not isinstance(row, Dialect):
        raise InputError(f"--source {dialect}: {rest} must be a Dialect of transfer.convert.dialects in {name}")
    return row


def split(contents: Contents, row: Dialect, asked: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the wanted backbone under whatever names it has, and every other tensor's name with why it is dropped.

    ``asked`` is the dialect as the user named it, with ``plain``'s prefix. Raises InputError when the file is of another layout
    or the choice is open.
    """
    if not contents.claimed(row):
        raise InputError(f"{contents.path} is not in the layout of {row.name}; leave --source out to have it detected")
    tensors = contents.within(row.within)
    for expression, why in row.refused.items():
        if tensors.has(expression):
            raise FileError(f"{contents.path}: {why}")
    if row.fallback:
        chosen = _chosen(contents, asked)
        others = {re.escape(p): "of another backbone" for p in tensors.prefixes if p.startswith(chosen) and p != chosen}
        return _taken(contents, tensors, dataclasses.replace(row, drops=others), re.escape(chosen))
    return _taken(contents, tensors, row, next((p for p in row.prefix if tensors.has(p)), row.prefix[-1]))


def _chosen(contents: Contents, asked: str) -> str:
    """Return the prefix of the one backbone, or of the one that was asked for."""
    there = contents.whole.prefixes
    _, colon, choice = asked.partition(":")
    if colon:
        wanted = unwrapped(choice).strip(".") + "."
        wanted = "" if wanted == "." else wanted
        if wanted not in there:
            raise InputError(f"{contents.path} has no backbone under {wanted}; there are: {', '.join(there)}")
        return wanted
    if len(there) > 1:
        options = " or ".join(f"plain:{prefix or '.'}" for prefix in there)
        raise InputError(f"{contents.path} holds {len(there)} backbones; choose with --source {options}")
    return there[0]


def _taken(contents: Contents, tensors: Tensors, row: Dialect, prefix: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    inside: dict[str, tuple[str, Tensor]] = {}
    dropped: dict[str, str] = {}
    for key, full, value in tensors.items:
        if reason := next((why for start, why in row.drops.items() if re.match(start, full)), None):
            dropped[key] = reason
        elif (match := re.match(prefix, full)) is None:
            dropped[key] = row.rest
        elif (name := full[match.end() :]) in inside:
            raise FileError(
                f"{contents.path}: {key} is there twice, with and without a wrapper; save one backbone only"
            )
        else:
            inside[name] = (key, value)
    heads = (
        row.heads + tuple({h for family in families().values() for h in family.heads}) if row.fallback else row.heads
    )
    deeper = prefixes(name for name in inside if not name.startswith(heads))
    inner = deeper[0] if len(deeper) == 1 else ""
    backbone = {}
    for name, (key, value) in inside.items():
        rest = name.removeprefix(inner)
        if name.startswith(row.heads) or rest.startswith(row.heads):
            dropped[key] = HEAD
        elif not name.startswith(inner):
            dropped[key] = "beside the backbone"
        else:
            backbone[rest] = value
    return backbone, dropped


def _pretrain(contents: Contents, row: Dialect) -> dict[str, Any]:
    """Return what the file says about its pre-training, nothing where that is no such thing: it is a stranger's word."""
    try:
        found = _said(contents, row)
        names = [found.get("method", ""), *found.get("branches", ())]
        if len(json.dumps(found, allow_nan=False)) > TEXT or not all(isinstance(name, str) for name in names):
            return {}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return found


def _said(contents: Contents, row: Dialect) -> dict[str, Any]:
    """Return what the file says; a converted file's recipe remembers it."""
    if callable(row.pretrain):
        return row.pretrain(contents.checkpoint)
    if not row.method:
        earlier = contents.entry("recipe.pretrain")
        return dict(earlier) if isinstance(earlier, Mapping) else {}
    said = {ours: contents.entry(theirs) for ours, theirs in row.pretrain.items()}
    return {"method": row.method} | {key: value for key, value in said.items() if isinstance(value, int | float | str)}


def describe(contents: Contents) -> str:
    """Say in a few words what a file holds: a transformer, only vectors and matrices, or its first keys."""
    tensors = contents.whole.items
    keys = ", ".join(key for key, _, _ in tensors[:3]) or ", ".join(map(str, list(contents.checkpoint)[:3])) or "none"
    if any(TRANSFORMER.search(key) for key, _, _ in tensors):
        return f"a transformer, first keys: {keys}; only ConvNets are carried"
    if tensors and not any(value.ndim == 4 for _, _, value in tensors):
        return f"no convolution, only a projector or classifier, first keys: {keys}"
    if any(key.startswith(("trunk_output.", "features.0.0.")) for key, _, _ in tensors):
        return f"a network of torchvision's that is not read, first keys: {keys}; take timm's weights of it (hf://timm/...)"
    return f"first keys: {keys}"


def unwrapped(name: str) -> str:
    """Take the wrappers off a tensor's name, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors and arrays of nested mappings under dotted names, arrays as tensors."""
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, np.ndarray):
            found[f"{prefix}{key}"] = torch.as_tensor(value.astype(value.dtype.newbyteorder("="), copy=False))
    return found


def prefixes(names: Iterable[str]) -> list[str]:
    """Return what stands before the first block of each backbone among the names, sorted."""
    marks = [mark for family in families().values() for mark, _ in family.readings().values()]
    known = re.compile(rf"^((?:.*\.)?)(?:{'|'.join(marks)})")
    return sorted({match[1] for name in names if (match := known.match(name))})


def recognise(backbone: Mapping[str, Tensor], source: Path | str, arch: str = "") -> Recognised:
    """Recognise and check the tensors of one backbone; raise FileError saying what is wrong with them.

    ``arch`` is what the file or the user calls the network; a name of timm's is believed when the tensors fit it.
    """
    dropped = {name: "a counter, not a weight" for name in backbone if TEMPORARY.search(name)}
    backbone = {name: tensor for name, tensor in backbone.items() if name not in dropped}
    named = timm.known(arch) and not timm.plain(arch)
    family, naming, tensors, config, reason = _network(backbone, arch if named else "")
    if config is None:
        raise (
            reason if isinstance(reason, FileError) else FileError(f"{source}: {reason or _unknown(backbone, source)}")
        )
    dropped |= dict.fromkeys(family.after(config, tensors), "after the four stages")
    dropped |= dict.fromkeys(filter(NORM.match, tensors), "norm of what a stage gives out, not of the stage")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    dropped |= dict.fromkeys((name for name in tensors if name.endswith(COUNTER)), "a counter, not a weight")
    tensors, notes = _checked(tensors, family, config, source)
    return Recognised(family, config, naming, tensors, dropped, notes)


Found = tuple[type[Backbone], str, dict[str, Tensor], Any, Exception | None]


def _network(backbone: Mapping[str, Tensor], model: str) -> Found:
    """Return family, naming, tensors under our names and config; or no config, and the reason that a family gives."""
    reason: Exception | None = None
    given = Timm.native(backbone)
    if model and Timm.fits(model, given[1]):
        return Timm, given[0], given[1], Timm.Config(model=model), None
    for family in families().values():
        try:
            found = family.native(backbone)
            if found is not None:
                tensors = {name: tensor for name, tensor in found[1].items() if not name.startswith(family.heads)}
                if (config := family.recognise(tensors)) is not None:
                    return family, *found, config, None
        except ValidationError as error:
            reason = reason or InputError(f"its sizes fit no network of ours: {error.errors()[0]['msg']}")
        except InputError as error:
            reason = reason or error
    return Timm, *given, None, reason


def _unknown(backbone: Mapping[str, Tensor], source: Path | str) -> str:
    if not backbone:
        return "it holds no backbone, only a projector or classifier; save the whole network"
    if any(name.startswith(("conv1.", "layer")) for name in backbone):
        return "it lacks the first block of a ResNet (layer1.0.conv1.weight); is it a part of one, or renamed?"
    return (
        f"it holds no network of a known family ({describe(Contents(backbone, source))}); known: {', '.join(families())}. "
        "Is it a projector, a ViT or another architecture? A ConvNet of timm is named with --arch"
    )


def _checked(
    tensors: Mapping[str, Tensor], family: type[Backbone], config: Any, source: Path | str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return exactly the network's tensors in fp32; refuse missing, extra, misshapen, whole-numbered and non-finite ones."""
    with without_values():
        expected = {k: v for k, v in family(config).state_dict().items() if not k.endswith(COUNTER)}
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    extra = [name for name in found if name not in expected]
    if missing := [name for name in expected if name not in found]:
        unknown = f", and has {len(extra)} unknown, first {extra[0]}: are they renamed?" if extra else ""
        raise FileError(
            f"{source} lacks {len(missing)} of {len(expected)} backbone tensors, first {missing[0]}{unknown}"
        )
    if extra:
        raise FileError(f"{source} has {len(extra)} tensors that a {family.arch(config)} has not, first {extra[0]}")
    for name, tensor in found.items():
        _check_one(name, tensor, expected[name], source)
    notes = []
    for dtype in sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.values()} - {"float32"}):
        change = "narrowed (values are rounded)" if dtype == "float64" else "widened"
        notes.append(f"{dtype} tensors {change} to float32")
    return {name: found[name].detach().float().contiguous() for name in expected}, notes


def _check_one(name: str, tensor: Tensor, expected: Tensor, source: Path | str) -> None:
    if tensor.is_meta or tensor.layout is not torch.strided:
        what = "has no values (meta device)" if tensor.is_meta else "is sparse"
        raise FileError(f"{source}: {name} {what}; save the network's state_dict from the CPU, dense")
    if tensor.shape != expected.shape:
        turned = " (transposed?)" if sorted(tensor.shape) == sorted(expected.shape) else ""
        raise FileError(f"{source}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}{turned}")
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        kind = "quantised" if tensor.is_floating_point() else "not floating point"
        raise FileError(f"{source}: {name} is {tensor.dtype}, {kind}; give the weights before quantisation")
    # a finite sum tells that all are, in a tenth of the time; one that is not may be too large a sum
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise FileError(f"{source}: {name} holds NaN or infinite values; take an earlier checkpoint")
