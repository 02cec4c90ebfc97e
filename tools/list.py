"""List what there is, a line each: python tools/list.py benchmarks"""

import argparse
import json
from collections.abc import Callable

import checkout

from core.errors import cli, nearest

PLUGINS = {
    "methods": "pretrain.methods",
    "branches": "pretrain.branches",
    "masks": "pretrain.masks",
    "fills": "pretrain.fills",
    "backbones": "core.backbones",
    "data": "core.data",
    "frameworks": "transfer.frameworks",
    "launchers": "transfer.suite.launchers",
    "tasks": "transfer.frameworks.classification.tasks",
}


def benchmarks() -> dict[str, str]:
    """Return each benchmark with what it measures."""
    from transfer import benchmarks

    return {name: row.about for name, row in benchmarks.shipped().items()}


def plugins(package: str) -> dict[str, str]:
    """Return each member of a plug-in folder with the first line of its file."""
    import importlib
    import inspect

    from core import plugins

    found = {name: importlib.import_module(f"{package}.{name}") for name in plugins.names(package)}
    return {name: (inspect.getdoc(module) or "").partition("\n")[0] for name, module in found.items()}


def dialects() -> dict[str, str]:
    """Return each checkpoint dialect with where its layout is documented."""
    from transfer.convert.dialects import DIALECTS

    return {name: row.layout for name, row in DIALECTS.items()}


def targets() -> dict[str, str]:
    """Return each target of the conversion with the endings of its files."""
    from transfer.convert.targets import TARGETS

    forms = {name: "a folder" if row.folder else " or ".join(row.suffixes) for name, row in TARGETS.items()}
    return {name: f"written as {form}" for name, form in forms.items()}


def datasets() -> dict[str, str]:
    """Return each data set that tools/prepare_data.py fetches or places."""
    import prepare_data

    [commands] = [action for action in prepare_data.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return {shown.dest: shown.help or "" for shown in commands._choices_actions}


def configs() -> dict[str, str]:
    """Return each config of pre-training and each suite with the first line of its comment."""
    found = {}
    for file in sorted((checkout.ROOT / "configs").rglob("*.yaml")):
        place = file.relative_to(checkout.ROOT)
        if place.parts[1] in ("pretrain", "suites") and "_base_" not in place.parts:
            lines = [line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#")]
            found[place.as_posix()] = lines[0] if lines else ""
    return found


def sorts() -> dict[str, Callable[[], dict[str, str]]]:
    """Return what can be listed."""
    members = {name: (lambda package=package: plugins(package)) for name, package in PLUGINS.items()}
    return {
        "benchmarks": benchmarks,
        "configs": configs,
        "dialects": dialects,
        "targets": targets,
        "datasets": datasets,
        **members,
    }


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sort", nargs="?", type=_sort, choices=list(sorts()), help="all by default")
    parser.add_argument("--json", action="store_true", help="as JSON: {sort: {name: what it is}}")
    return parser


def _sort(word: str) -> str:
    if word not in sorts():
        raise argparse.ArgumentTypeError(f"no {word!r}; {nearest(word, sorts())}")
    return word


def main() -> None:
    """Print the names of one sort of thing, or of all."""
    given = parser().parse_args()
    found = {name: made() for name, made in sorts().items() if given.sort in (None, name)}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, members in found.items():
        width = max(map(len, members))
        print(
            *([f"{name}:"] if given.sort is None else []),
            *(f"{key:<{width}}  {about}" for key, about in members.items()),
            sep="\n",
        )


if __name__ == "__main__":
    cli(main)
