"""Find a plug-in by its file name: ``name: mixmask`` is the one class in ``pretrain/branches/mixmask.py``."""

import difflib
import importlib
import inspect
import pkgutil
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from core.config import Settings
from core.errors import InputError


def names(package: str) -> list[str]:
    """List the members of a plug-in folder, sorted."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_"))


def find(package: str, name: str) -> Any:
    """Return the class that ``package/name.py`` exports: the one named like its file.

    Raises InputError listing what there is when there is no such file.
    """
    members = names(package)
    if name not in members:
        close = difflib.get_close_matches(name, members, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(f"no {name!r} in {package}; there are: {', '.join(members)}{hint}")
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


def choice(package: str) -> Any:
    """Return the type of a setting that picks a plug-in of ``package`` by ``name`` and holds that plug-in's settings."""

    def validate(value: Any) -> Any:
        if isinstance(value, Settings):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise InputError(f"give a mapping with the key 'name'; {package} has: {', '.join(names(package))}")
        plugin = find(package, value["name"])
        if not hasattr(plugin, "Config"):
            raise InputError(f"{plugin.__module__}.{plugin.__name__} has no Config: give it a class Config(Settings)")
        return plugin.Config.model_validate(value)

    return Annotated[SerializeAsAny[Settings], BeforeValidator(validate)]


def build(package: str, config: Any, **parts: Any) -> Any:
    """Make the plug-in that ``config.name`` names."""
    return find(package, config.name)(config, **parts)
