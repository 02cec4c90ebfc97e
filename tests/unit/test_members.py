"""Every method, branch, mask and fill keeps the contract of its folder and is used by a shipped config."""

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.plugins import find, names

ROOT = Path(__file__).parents[2]
FOLDERS = ("methods", "branches", "masks", "fills")
MEMBERS = [(folder, name) for folder in FOLDERS for name in names(f"pretrain.{folder}")]


@pytest.mark.parametrize(("folder", "name"), MEMBERS)
def test_every_member_is_one_class_named_like_its_file_with_settings_and_a_source(folder: str, name: str) -> None:
    member = find(f"pretrain.{folder}", name)
    assert member.__name__.lower() == name
    assert "Config" in vars(member), "its own, not an inherited one"
    assert member.Config.model_fields["name"].default == name
    text = inspect.getsource(inspect.getmodule(member))
    assert re.search(r"arXiv \d{4}\.\d{5}", text), "cites no paper"
    assert member.__doc__
    assert member.Config.__doc__


def used(values: Any) -> set[str]:
    """Return every ``name`` in nested settings."""
    if isinstance(values, dict):
        own = {values["name"]} if isinstance(values.get("name"), str) else set()
        return own.union(*(used(value) for value in values.values()))
    return set()


@functools.cache
def shipped() -> dict[str, set[str]]:
    """Return the members of each folder that a shipped config uses, defaults included."""
    found: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
    for path in sorted((ROOT / "configs" / "pretrain").glob("*.yaml")):
        values = yaml.safe_load(path.read_text())  # the bases name neither methods nor branches
        found["methods"].add(values["method"]["name"])
        for given in values.get("branches", {}).values():
            one = find("pretrain.branches", given["name"]).Config.model_validate(given).model_dump(mode="json")
            found["branches"].add(one["name"])
            found["masks"] |= used(one.get("mask", {}))
            found["fills"] |= used(one.get("fill", {}))
            # MSCN is a mixture of three masks, saliency has a balanced one, MixMask fills with the partner
            found["masks"] |= {"mscn": {"focal", "discrete", "channelwise"}, "saliency": {"balanced"}}.get(
                one["name"], set()
            )
            found["fills"] |= {"partner"} if one["name"] == "mixmask" else set()
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_member_is_used_by_a_shipped_config(folder: str) -> None:
    assert sorted(set(names(f"pretrain.{folder}")) - shipped()[folder]) == []
