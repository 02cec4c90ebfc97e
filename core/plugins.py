"""Find a plug-in: ``name: mixmask`` is the one class in ``pretrain/branches/mixmask.py``; ``name: my_package.my_module:MyMask``
is a class of the user's, from anywhere Python imports from (docs/plugins.md).
"""

import contextlib
import contextvars
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from core.config import Settings
from core.errors import InputError, nearest

_IMPORTS = contextvars.ContextVar("imports", default=True)


def names(package: str) -> list[str]:
    """List the members of a plug-in folder, sorted."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def find(package: str, name: str) -> Any:
    """Return the class that ``package/name.py`` exports: the one named like its file; no other name is looked for.

    Raises InputError with the nearest names when there is no such file.
    """
    members = names(package)
    if name not in members:
        raise InputError(f"no {name!r} in {package}; {nearest(name, members, package.rpartition('.')[2])}")
    module = importlib.import_module(f"{package}.{name}")
    wanted = name.replace("_", "")
    found = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and key.lower() == wanted
    ]
    if len(found) != 1:
        there = [
            key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        raise InputError(
            f"{module.__file__} must define one class named like the file, {name.title().replace('_', '')}; "
            f"it defines {', '.join(there) or 'no class'}"
        )
    return found[0]


@contextlib.contextmanager
def none_imported() -> Iterator[None]:
    """Let settings from a run folder name only outside plug-ins that the user's own settings have imported already."""
    token = _IMPORTS.set(False)
    try:
        yield
    finally:
        _IMPORTS.reset(token)


def named(package: str, name: str) -> Any:
    """Return the class that the user's settings name: one of the folder's, or ``module:Class`` of a package of the user's.

    Raises InputError when the module cannot be imported, or holds no such class, or one that does not extend the contract.
    """
    module, outside, attribute = name.partition(":")
    if not outside:
        return find(package, name)
    if module not in sys.modules and not _IMPORTS.get():
        raise InputError(f"{name} is named by a run folder only; name it in the config as well to have it imported")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # a module of the user's can raise anything
        raise InputError(
            f"cannot import {module} for {name} ({type(error).__name__}: {error}); install its package or set PYTHONPATH"
        ) from error
    ours = [kind for kind in vars(importlib.import_module(package)).values() if inspect.isabstract(kind)]
    contracts = tuple(kind for kind in ours if kind.__module__ == package)
    if not (inspect.isclass(found) and issubclass(found, contracts)):
        extended = " or ".join(kind.__name__ for kind in contracts)
        raise InputError(f"{name} is no class that extends {extended} of {package}; write one, or name another")
    return found


def choice(package: str, kind: str = "Config") -> Any:
    """Return the type of a setting that picks a plug-in of ``package`` by ``name`` and holds its settings of one kind."""

    def validate(value: Any) -> Any:
        if isinstance(value, Settings):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise InputError(f"give a mapping with the key 'name'; {package} has: {', '.join(names(package))}")
        plugin = named(package, value["name"])
        if not hasattr(plugin, kind):
            raise InputError(f"{plugin.__module__}.{plugin.__name__} has no {kind}: give it a class {kind}(Settings)")
        return getattr(plugin, kind).model_validate(value)

    return Annotated[SerializeAsAny[Settings], BeforeValidator(validate)]


def build(package: str, config: Any, **parts: Any) -> Any:
    """Make the plug-in that ``config.name`` names."""
    return named(package, config.name)(config, **parts)
