"""A plug-in that a user wrote wrong is answered with what its file must hold."""

import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from core import plugins
from core.errors import InputError
from pretrain import masks


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that puts a file of masks beside the shipped ones."""
    monkeypatch.setattr(masks, "__path__", [*masks.__path__, str(tmp_path)])

    def put(text):
        (tmp_path / "my_stripes.py").write_text(text)
        sys.modules.pop("pretrain.masks.my_stripes", None)

    yield put
    sys.modules.pop("pretrain.masks.my_stripes", None)


def test_the_wanted_class_and_those_found_are_named(write):
    write("class Stripe: pass\n")
    with pytest.raises(InputError, match=r"my_stripes\.py must define one class .*, MyStripes; it defines Stripe$"):
        plugins.find("pretrain.masks", "my_stripes")
    write("x = 1\n")
    with pytest.raises(InputError, match="it defines no class"):
        plugins.find("pretrain.masks", "my_stripes")


def test_a_class_without_settings_is_told_to_have_some(write):
    write("class MyStripes: pass\n")
    with pytest.raises(ValidationError, match=r"pretrain\.masks\.my_stripes\.MyStripes has no Config"):
        TypeAdapter(plugins.choice("pretrain.masks")).validate_python({"name": "my_stripes"})
