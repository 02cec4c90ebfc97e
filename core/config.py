"""YAML files with bases and overrides into checked, frozen settings: the only loader."""

import difflib
import inspect
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError

from core import bounds
from core.errors import InputError


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PluginSettings(Settings):
    """Base of a plug-in's settings; ``name`` is the plug-in's file name."""

    name: str


S = TypeVar("S", bound=Settings)


def load(path: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file, merge its ``_base_`` files under it and ``key.sub=value`` overrides over it; a mapping is taken as it is.

    ``_base_`` is a path or a list of paths relative to the file; bases must not set the same key.
    """
    merged: Any = OmegaConf.create(dict(path)) if isinstance(path, Mapping) else _read(Path(path), ())
    for override in overrides:
        key, found, value = override.partition("=")
        if not found or not all(key.split(".")) or value == "???":
            raise InputError(f"cannot read the override {override!r}; write key=value, for example train.epochs=10")
    try:
        merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    if any(abs(number) >= 2**63 for number in _all(int, plain)):
        raise InputError(f"{path}: a number of more than 64 bits; correct it")
    return plain  # type: ignore[return-value]


def _read(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path} is its own base, through {' -> '.join(p.name for p in seen)}; remove one _base_")
    if not path.is_file():
        origin = f" (a _base_ of {seen[-1]})" if seen else ""
        raise InputError(f"no config at {path}{origin}; the shipped ones are under configs/")
    try:
        own = OmegaConf.load(io.StringIO(bounds.yaml_text(path)))
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError, AttributeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(own, DictConfig):
        raise InputError(f"{path} holds a {type(own).__name__}, not a mapping of settings")
    _check_references(OmegaConf.to_container(own), path)
    bases = own.pop("_base_", [])
    bases = OmegaConf.to_container(bases) if OmegaConf.is_config(bases) else bases
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{path}: _base_ is {bases!r}; give the path of a file, or a list of paths")
    merged = OmegaConf.create({})
    owner: dict[str, str] = {}
    for base in bases:
        part = _read(path.parent / base, (*seen, path))
        for key in _leaves(OmegaConf.to_container(part)):
            if key in owner:
                raise InputError(f"{path}: the bases {owner[key]} and {base} both set {key}; keep it in one of them")
            owner[key] = base
        merged.merge_with(part)
    merged.merge_with(own)
    return merged


# ``${oc.env:NAME,default}``, or ``${key.sub}``; the latter alone or in a text without others, for they can name each other
REFERENCE = re.compile(r"\$\{(?:oc\.env:\w+(?:,[^${}]*)?|[A-Za-z_][\w.]*)\}")


def _check_references(values: Any, path: Path) -> None:
    """Raise InputError for references that compute something, or that could make a text of a text of a text."""
    for text in _all(str, values):
        found = REFERENCE.findall(text)
        if text.count("${") != len(found) or sum(not one.startswith("${oc.") for one in found) > 1:
            raise InputError(f"{path}: cannot follow {text[:80]!r}; write one ${{key}}, or ${{oc.env:NAME,default}}")


def _leaves(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [leaf for key, part in value.items() for leaf in _leaves(part, f"{prefix}.{key}" if prefix else str(key))]


def parse(settings: type[S], values: dict[str, Any], source: Path | str = "config") -> S:
    """Check ``values`` against a settings class; every problem is named with its full path, all at once."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        problems = [f"  {_where(e['loc'])}: {_say(e, settings)}" for e in error.errors()]
        raise InputError(f"{source} has {len(problems)} problem(s):\n" + "\n".join(problems)) from error


def _keys(settings: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Return the settings there are at a place, as far as types tell them: what a plug-in has depends on its name."""
    for part in loc:
        field = settings.model_fields.get(part)
        settings = field.annotation if field else None
        if not (inspect.isclass(settings) and issubclass(settings, BaseModel)):
            return []
    return list(settings.model_fields)


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:80] for part in loc) or "(top level)"


def _say(error: Any, settings: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _keys(settings, error["loc"][:-1]), n=1)
        return (
            f"no such setting; did you mean {close[0]}?"
            if close
            else "no such setting; remove it or check the spelling"
        )
    if error["type"] == "missing":
        return "missing; set it"
    message = error["msg"].removeprefix("Value error, ")
    return message if error["type"] == "value_error" else f"{message}, got {repr(error['input'])[:200]}"


def dump(settings: Settings) -> str:
    """Write settings as YAML; ``parse(load(dump(s))) == s``. Raises InputError for text that YAML and OmegaConf would change."""
    values = settings.model_dump(mode="json")
    for text in _all(str, values):
        if "${" in text or "\x85" in text:
            raise InputError(f"{text!r} cannot be kept in a config: it holds ${{ or a next-line character; rename it")
    return OmegaConf.to_yaml(OmegaConf.create(values))


def _all(kind: type, value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for part in value.items() for found in _all(kind, list(part))]
    if isinstance(value, list):
        return [found for part in value for found in _all(kind, part)]
    return [value] if isinstance(value, kind) else []
