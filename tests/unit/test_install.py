"""What `pip install` of the project does: an editable install of a checkout works, a wheel is refused in one sentence."""

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_without_configs_and_tools_is_refused_with_how_to_install(monkeypatch):
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object  # the environment has no hatchling: it is fetched for the build
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / hook["custom"]["path"])
    built = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(built)
    assert built.CheckoutOnly().initialize("editable", {}) is None
    with pytest.raises(SystemExit, match="git clone it, then `make setup` there, or `pip install --editable"):
        built.CheckoutOnly().initialize("standard", {})
