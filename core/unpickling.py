"""What may come out of an untrusted pickle: arrays, tensors and plain containers, and stand-ins for the rest.

Arrays are rebuilt here from their bytes, shape and kind. NumPy's own unpickling trusts what the file says about an array's
memory, so that a few altered bytes can crash the process or worse.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

KIND = re.compile(r"[<>=|]?[biufc?]\d{0,2}")  # whole numbers, floating point, complex, bool

# Objects that training codes put beside the tensors: settings, paths, logs. None of them is made when a file is read: an
# empty stand-in (or a plain dict, where a mapping is filled) takes its place, and no code of the named module runs.
SETTINGS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|pathlib\.(_local\.)?\w*Path|typing\.\w+|datetime\.\w+|uuid\.UUID|enum\.\w+"
    r"|numpy\.dtypes\.\w+|builtins\.(getattr|list|tuple|frozenset|int|float|str|bool|bytes|complex|slice|range|object)"
    r"|(omegaconf|pytorch_lightning|lightning|lightning_fabric|yacs|fvcore|addict|easydict|mmcv|mmengine|mmselfsup|vissl"
    r"|classy_vision|detectron2\.config|hydra|torchmetrics)\.[\w.]+"
)
MAPPINGS = re.compile(r"[\w.]+\.(AttrDict|AttributeDict|ConfigDict|CfgNode|EasyDict|addict\.Dict)")


class StandIn:
    """Take the place of an object that is not a tensor, and drop what was in it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        """Accept any arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the object's content."""


class Kind:
    """An array's kind of number (``numpy.dtype``); ``value`` is None for anything but numbers."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.value = np.dtype(name) if isinstance(name, str) and KIND.fullmatch(name) else None

    def __setstate__(self, state: Any) -> None:
        """Take the byte order, and nothing else that a file says about memory."""
        if self.value is not None and isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class Array:
    """An array that is being read; ``value`` is the array once its state is set, before that a stand-in."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = StandIn()

    def __setstate__(self, state: Any) -> None:
        """Build the array from (version, shape, kind, is Fortran order, bytes)."""
        _, shape, kind, fortran, data = state
        self.value = array(data, kind, shape, "F" if fortran else "C")


class Maker:
    """A function that a pickle may call, and cannot reach into: a pickle may set attributes of what it names."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *given: Any) -> Any:
        return self._make(*given)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"a state for {self._make.__name__}")


def array(data: Any, kind: Any, shape: Any, order: str = "C") -> Any:
    """Return the array that the bytes hold, or a stand-in when they hold no numbers; raise ValueError when sizes disagree."""
    if not isinstance(kind, Kind) or kind.value is None:
        return StandIn()
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(bytearray(data), kind.value).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: Any, data: Any = b"") -> Any:
    value = array(data, kind, ())
    return value if isinstance(value, StandIn) else value[()]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


def _no_bytes(*_: Any) -> bytes:
    return b""  # what an array without elements holds


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


# pickled name -> what takes its place; NumPy 1 and 2 have two names for each
ARRAYS: dict[str, Any] = {"numpy.ndarray": Array, "numpy.dtype": Kind, "_codecs.encode": Maker(_encode)}
ARRAYS |= {"builtins.bytes": Maker(_no_bytes), "__builtin__.bytes": Maker(_no_bytes)}
for _package in ("numpy.core", "numpy._core"):
    ARRAYS |= {f"{_package}.multiarray._reconstruct": Array, f"{_package}.multiarray.scalar": Maker(_scalar)}
    ARRAYS |= {f"{_package}.numeric._frombuffer": Maker(array)}


def stand_in(name: str) -> Any:
    """Return what takes the place of a pickled class, or None when the class is not known to be harmless."""
    if name in ("collections.defaultdict", "builtins.dict"):
        return Maker(_plain_dict)
    if SETTINGS.fullmatch(name) and MAPPINGS.fullmatch(name):
        return OrderedDict
    return StandIn if SETTINGS.fullmatch(name) else None


def resolved(value: Any, done: dict[int, Any] | None = None) -> Any:
    """Put the arrays in place of what they were read as, in nested mappings, lists and tuples; what occurs often, once."""
    done = {} if done is None else done
    if isinstance(value, Array | Kind):
        return value.value
    if not isinstance(value, dict | list) and type(value) is not tuple:
        return value
    if id(value) not in done:
        if type(value) is tuple:
            done[id(value)] = tuple(resolved(item, done) for item in value)
        else:
            done[id(value)] = value
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                value[key] = resolved(item, done)  # type: ignore[index]
    return done[id(value)]


class ArrayUnpickler(pickle.Unpickler):
    """Admit arrays and plain containers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return our own reading of an array's parts; raise UnpicklingError naming anything else."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if f"{module}.{name}" not in ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return ARRAYS[f"{module}.{name}"]
