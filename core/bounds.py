"""Limits on what a stranger's file may cost before it is understood: pickles, archives, YAML, JSON.

A few hundred bytes can describe 10^20 objects by naming the same ones again and again, and a number in them can ask for any
amount of memory. Every limit is far above what a real file needs, and each refusal is a FileError that names the file.
"""

import contextlib
import itertools
import json
import pickletools
import re
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree import ElementTree

from core.errors import InputError
from core.files import FileError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

STEPS = 500_000  # operations of a pickle; a checkpoint of a ResNet-50 and its optimizer has 50,000, a file of CIFAR-100 250,000
OBJECTS = 10_000_000  # of a pickle, with each counted as often as it occurs
NODES = 200_000  # of a YAML file, counted in the same way
DEPTH = 100  # of lists and mappings in each other
TEXT = 4 * 2**20  # bytes of a config
IMAGE, MOST_PIXELS = 2**30, 2**26  # bytes and pixels of an image; a few bytes can stand for many pixels
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")  # Pillow has others that start programs, as EPS does
MAT = 16 * 2**20  # bytes that the arrays of a MATLAB file may unpack to
MAT_STRUCTURE, MAT_ARRAY, MAT_PACKED = 2, 14, 15  # a class of arrays, and two types of elements
MAT_NUMBERS = dict(zip(range(6, 16), ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), strict=True))
MAT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
JSON_TEXT = 512 * 2**20  # bytes of a JSON file; the annotations of COCO's training set have 450 MB


def regular(path: Path, most: int, what: str) -> bytes:
    """Return a file's bytes; raise FileError when it is a pipe, a device or too large, before anything is read."""
    try:
        check_regular(path, most, what)
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or 'cannot be read').lower()}; check the path") from error


def check_regular(path: Path, most: int, what: str) -> None:
    """Raise FileError when a file is a pipe, a device or too large, OSError when it is not there."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is no regular file; give {what}")
    if status.st_size > most:
        raise FileError(f"{path} has {status.st_size:,} bytes, more than {most:,}; is it {what}?")


def text(path: Path, what: str, most: int = TEXT) -> str:
    """Return a text file's content; raise FileError when it is no regular file, too large, or not UTF-8."""
    try:
        return regular(path, most, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not text in UTF-8; give {what}") from error


def check_pickles(path: Path) -> None:
    """Raise FileError when reading a file's pickles would take too long or too much memory (``torch.save`` once wrote five)."""
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in text
        for _ in range(5):
            try:
                check_pickle(file, path)
            except FileError:
                raise
            except (ValueError, OverflowError, MemoryError):  # what is damaged, its reader tells
                return


def check_pickle(data: bytes | BinaryIO, path: Path | str) -> None:
    """Raise FileError when reading a pickle would take too long or too much memory, ValueError when it is damaged.

    It is gone through without making an object; each is counted with all that is in it, as often as it is named.
    """
    holds: list[list[int]] = []  # the objects in each object, by number
    stack: list[int] = []  # objects; -1 is a mark
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count > STEPS:
            raise FileError(f"{path} has more than {STEPS:,} operations in its pickle; it is no checkpoint")
        if opcode.name == "STOP":
            _check_sizes(holds, path)
            return
        if "PUT" in opcode.name or opcode.name == "MEMOIZE":
            place = len(memo) if argument is None else int(argument)
            if place > STEPS or not stack:
                raise FileError(f"{path} is damaged: its pickle keeps an object in place {place:,}")
            memo[place] = stack[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET") and argument is not None:
            if int(argument) not in memo:
                raise FileError(f"{path} is damaged: its pickle names an object that it does not hold")
            stack.append(memo[int(argument)])
        elif opcode.name == "MARK":
            stack.append(-1)
        elif opcode.name == "DUP":
            stack += stack[-1:]
        elif opcode.stack_before or opcode.stack_after:
            _apply(opcode, stack, holds)
    raise ValueError(f"{path} is truncated: its pickle does not end")


FILLS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # they put objects into one that is there


def _apply(opcode: pickletools.OpcodeInfo, stack: list[int], holds: list[list[int]]) -> None:
    """Take what an operation uses from the stack, and put what it makes there."""
    taken, before = [], opcode.stack_before
    if pickletools.markobject in before:
        while stack and (top := stack.pop()) != -1:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    if opcode.name in FILLS and stack:
        if len(before) > 1:
            taken += [top for top in (stack.pop() for _ in before[1:] if stack) if top != -1]
        if stack and stack[-1] != -1:
            holds[stack[-1]] += taken
        return
    for _ in before:
        if stack and (top := stack.pop()) != -1:
            taken.append(top)
    for _ in opcode.stack_after[:1]:
        holds.append(taken)
        stack.append(len(holds) - 1)


def _check_sizes(holds: list[list[int]], path: Path | str) -> None:
    """Raise FileError when an object holds too many, counted as often as they occur; those that it is itself in count as one."""
    sizes: dict[int, int] = {}
    for first in range(len(holds)):
        waiting = [first]
        while waiting:
            one = waiting[-1]
            size = sizes.get(one)
            if size is None:
                sizes[one] = 0  # under way
                waiting += [part for part in holds[one] if part not in sizes]
                continue
            waiting.pop()
            if size == 0:
                sizes[one] = 1 + sum(sizes[part] for part in holds[one])
                if sizes[one] > OBJECTS:
                    raise FileError(f"{path} names the same objects more than {OBJECTS:,} times; it is no checkpoint")


def check_zip(path: Path) -> None:
    """Raise FileError unless each member of an archive by ``torch.save`` is stored whole and its checksum fits."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise FileError(f"{path} is a compressed archive, not what torch.save writes; unpack it")
            if sum(m.file_size for m in members) > path.stat().st_size:
                raise FileError(f"{path} says that it holds more than it does; copy or download it again")
            for name in (m.filename for m in members if m.filename.endswith("data.pkl")):
                check_pickle(archive.read(name), path)
            if (bad := archive.testzip()) is not None:
                raise FileError(f"{path} is damaged: the checksum of {bad} does not fit; copy or download it again")
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is truncated or not a checkpoint; copy or download it again") from error


def check_tensors(value: Any, path: Path) -> None:
    """Raise FileError when tensors describe far more numbers than their file holds, as one that repeats a number does."""
    import torch  # here, so that tools that read no weights start fast

    room, seen, waiting = 8 * path.stat().st_size + 64 * 2**20, set(), [("a tensor", value)]
    while waiting:
        name, one = waiting.pop()
        if isinstance(one, torch.Tensor):
            if one.layout is not torch.strided or one.device.type != "cpu":
                what = f"has no values ({one.device.type} device)" if one.layout is torch.strided else "is sparse"
                raise FileError(f"{path}: {name} {what}; save plain tensors with their values")
            room -= one.numel() * one.element_size()
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.items() if isinstance(one, dict) else ((name, part) for part in one)
        if room < 0:
            raise FileError(f"{path} describes tensors far larger than the file; save them without expanding")


def yaml_text(path: Path, what: str = "a config") -> str:
    """Return a YAML file's text; raise FileError when what it describes is too much, or is described by itself."""
    import yaml

    try:
        content = text(path, what)
        _check_nodes(yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), path)
    except yaml.YAMLError as error:
        raise FileError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return content


def _check_nodes(events: Iterator[Any], path: Path) -> None:
    """Count the nodes that a YAML file describes, an anchor's as often as it is named."""
    import yaml

    sizes: dict[str, int] = {}
    under_way: list[list[Any]] = [[None, 0]]  # anchor and nodes of each mapping or list that is open
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            under_way.append([event.anchor, 1])
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent | yaml.AliasEvent):
            anchor, size = under_way.pop() if isinstance(event, yaml.CollectionEndEvent) else (event.anchor, 1)
            if isinstance(event, yaml.AliasEvent):
                if anchor not in sizes:
                    raise FileError(f"{path}: *{anchor} stands in what &{anchor} names; write it out")
                size = sizes[anchor]
            elif anchor:
                sizes[anchor] = size
            under_way[-1][1] += size
        if len(under_way) > DEPTH or under_way[-1][1] > NODES:
            raise FileError(
                f"{path} describes more than {NODES:,} values or is nested deeper than {DEPTH}; it is no config"
            )


def xml(content: str | bytes, path: Path) -> ElementTree.Element:
    """Return the root of an annotation; raise FileError when it defines entities, ParseError when it is no XML."""
    if re.search(rb"<!(DOCTYPE|ENTITY)", content.encode() if isinstance(content, str) else content, re.IGNORECASE):
        raise FileError(f"{path} defines entities (DOCTYPE), as no annotation does; remove that part")
    return ElementTree.fromstring(content)  # noqa: S314 - what makes it dangerous is refused


@contextlib.contextmanager
def image(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator["Image.Image"]:
    """Open an image of one of the formats; raise FileError when it is none, damaged, or of too many pixels."""
    from PIL import Image  # here: most forms of a report need no pictures

    try:
        check_regular(path, IMAGE, "an image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            with Image.open(path, formats=formats) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise ValueError(f"{opened.width} x {opened.height} pixels are more than {MOST_PIXELS:,}")
                yield opened
    except InputError:
        raise
    except Exception as error:  # a damaged image can raise anything
        raise FileError(f"{path} is truncated or not an image ({error}); copy or download it again") from error


def mat(path: Path, *names: str) -> "np.ndarray[Any, Any]":
    """Return the numbers that a MATLAB file (versions 5 to 7) has under a name, or under those of a structure and its field.

    Nothing larger is made than what the file holds, unpacked to MAT bytes at most. Raises FileError when it is damaged or holds
    no such array. The form is that of MathWorks' "MAT-File Format".
    """
    import numpy as np  # here: a report needs none

    data = memoryview(regular(path, TEXT, "a file of MATLAB"))
    try:
        if data[126:128] != b"IM":
            raise ValueError("not of version 5 to 7 with the lower byte first")
        parts = _mat_elements(data[128:], packed=True)
        while True:
            kind, dims, name, inside = _mat_array(next(parts))
            if names[0] not in ("", name):
                continue
            if not (names := names[1:]):
                break
            if kind != MAT_STRUCTURE or any(size != 1 for size in dims):
                raise ValueError(f"{name} is no structure")
            (length,), fields = struct.unpack("<i", next(inside)[1]), bytes(next(inside)[1])
            place = [fields[i : i + length].rstrip(b"\0") for i in range(0, min(len(fields), TEXT // 64), length)]
            parts, names = itertools.islice(inside, place.index(names[0].encode()), None), ("", *names[1:])
        of, content = next(inside)
        if kind not in MAT_NUMBERS or of not in MAT_TYPES:
            raise ValueError("an array that holds no numbers")
        return np.frombuffer(content, "<" + MAT_TYPES[of]).reshape(dims, order="F").astype(MAT_NUMBERS[kind])
    except Exception as error:  # a damaged file can raise anything
        told = str(error) or "an array is missing"
        raise FileError(f"{path} is damaged or no file of MATLAB ({told}); copy or download it again") from error


def _mat_elements(data: memoryview, packed: bool = False) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each element; those that are ``packed`` by zlib are unpacked."""
    place, left = 0, MAT
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        start = place + (4 if kind >> 16 else 8)  # a small one has type, size and content in eight bytes
        kind, size = (kind & 0xFFFF, kind >> 16) if kind >> 16 else (kind, size)
        if start + size > len(data):
            raise ValueError("it is truncated")
        place = start + size + (0 if kind == MAT_PACKED else -(start + size) % 8)
        content = data[start : start + size]
        if packed and kind == MAT_PACKED:
            content = memoryview(zlib.decompressobj().decompress(content, left + 1))
            left -= len(content)
            if left < 0:
                raise ValueError(f"arrays of more than {MAT:,} bytes")
            yield from _mat_elements(content)
        else:
            yield kind, content


def _mat_array(element: tuple[int, memoryview]) -> tuple[int, tuple[int, ...], str, Iterator[Any]]:
    """Return an array's class, dimensions and name, and the elements with its content."""
    if element[0] != MAT_ARRAY:
        raise ValueError(f"an element of type {element[0]} in place of an array")
    inside = _mat_elements(element[1])
    flags, dims, name = (next(inside)[1] for _ in range(3))
    sizes = struct.unpack(f"<{len(dims) // 4}i", dims)
    return struct.unpack_from("<I", flags)[0] & 0xFF, sizes, bytes(name).decode("latin-1"), inside


LARGEST = 1e15  # a number beyond is no measurement, and overflows what is computed with it


def loads(data: bytes | str) -> Any:
    """Return the value of a JSON text; raise ValueError when it is damaged, too deep, or of odd numbers or characters."""
    content = data if isinstance(data, str) else data.decode("utf-8")
    try:
        value = json.loads(content, parse_int=_whole, parse_float=_real, parse_constant=_real)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if "\\ud" in content.lower():
        json.dumps(value, ensure_ascii=False).encode()  # half a character is a UnicodeEncodeError, and so a ValueError
    return value


def _whole(digits: str) -> int:
    if len(digits) > 16:
        raise ValueError(f"{digits[:8]}... is no number of a measurement")
    return int(digits)


def _real(digits: str) -> float:
    if abs(value := float(digits)) > LARGEST:  # NaN is a value that there is not
        raise ValueError(f"{digits[:20]} is no number of a measurement")
    return value


def json_value(path: Path, what: str, most: int = JSON_TEXT) -> Any:
    """Return a JSON file's content; raise FileError when it is damaged, nested too deep or too large."""
    try:
        return loads(regular(path, most, what))
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is damaged or not JSON ({str(error)[:200]}); give {what}") from error


def mapping(path: Path) -> dict[str, Any] | None:
    """Return what one of our own small files keeps; None when it is not there, or so damaged that it is to be made again."""
    try:
        found = json_value(path, "a mapping", TEXT)
    except FileError:
        return None
    return found if isinstance(found, dict) else None
