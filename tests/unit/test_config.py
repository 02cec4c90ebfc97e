"""Configs: bases, overrides, problems that are named, and values that are refused."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from shipped_configs import PRETRAIN

from core import config
from core.config import Settings, dump, load, parse
from core.data.imagefolder import ImageFolder
from core.data.shapes import Shapes
from core.errors import InputError
from core.plugins import choice, find, names
from pretrain.branches.mscn import Mscn
from pretrain.config import PretrainSettings
from pretrain.masks.discrete import Discrete
from pretrain.methods.moco import Moco
from pretrain.views import ViewSettings


class Pair(Settings):
    left: int
    right: int = 2


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_config_is_its_bases_with_its_own_keys_and_the_overrides_on_top(tmp_path):
    write(tmp_path / "a.yaml", "x: {one: 1, two: 2}")
    write(tmp_path / "b.yaml", "y: 3")
    top = write(tmp_path / "top.yaml", "_base_: [a.yaml, b.yaml]\nx: {two: 20}")
    assert load(top, ["y=30", "x.three=[1,2]"]) == {"x": {"one": 1, "two": 20, "three": [1, 2]}, "y": 30}


def test_two_bases_that_set_the_same_key_are_refused(tmp_path):
    write(tmp_path / "a.yaml", "x: {one: 1}")
    write(tmp_path / "b.yaml", "x: {one: 2}")
    top = write(tmp_path / "top.yaml", "_base_: [a.yaml, b.yaml]")
    with pytest.raises(InputError, match=r"a\.yaml and b\.yaml both set x\.one"):
        load(top)


def test_a_config_that_is_its_own_base_is_refused(tmp_path):
    write(tmp_path / "a.yaml", "_base_: b.yaml")
    write(tmp_path / "b.yaml", "_base_: a.yaml")
    with pytest.raises(InputError, match="is its own base"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"), ("- 1", "not a mapping"), ("_base_: none.yaml", "a _base_ of"),
        (f"a: [{{b: 0x{'f' * 5000}}}]", "a number of more than 64 bits"),
    ],
)  # fmt: skip
def test_an_unreadable_config_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "bad.yaml", text))


def test_an_override_without_an_equals_sign_is_refused(tmp_path):
    with pytest.raises(InputError, match="write key=value"):
        load(write(tmp_path / "a.yaml", "x: 1"), ["x"])


def test_all_problems_are_named_at_once_with_their_paths():
    values = {
        "backbone": {"name": "resnet", "depth": 19},
        "data": {"name": "shapes", "siez": 3},
        "method": {"name": "mooco"},
        "branches": {"filled": {"name": "mixmask", "mask": {"name": "block", "ratio": 1.5}}},
    }
    with pytest.raises(InputError) as caught:
        parse(PretrainSettings, values, "my.yaml")
    text = str(caught.value)
    assert "my.yaml has 4 problem(s)" in text
    assert "backbone.depth: Input should be 18, 34, 50 or 101, got 19" in text
    assert "data.siez: no such setting" in text
    assert "method: no 'mooco' in pretrain.methods; did you mean moco?" in text
    assert "branches.filled.mask.ratio: a share hidden lies between 0 and 1" in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trian": {"epochs": 1}}, r"trian: no such setting; did you mean train\?"),
        ({"train": {"batchsize": 32}}, r"train\.batchsize: no such setting; did you mean batch_size\?"),
        ({"train": {"zzz": 1}}, r"train\.zzz: no such setting; remove it or check the spelling"),
    ],
)
def test_a_misspelt_setting_is_answered_with_the_nearest_one(values, said):
    with pytest.raises(InputError, match=said):
        parse(PretrainSettings, values, "my.yaml")


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.stem)
def test_every_shipped_config_survives_being_written_and_read_again(path, tmp_path):
    settings = parse(PretrainSettings, load(path), path)
    again = write(tmp_path / "again.yaml", dump(settings))
    assert parse(PretrainSettings, load(again), again) == settings


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Pair(left=1).left = 2


@pytest.mark.parametrize(
    "package",
    ["core.backbones", "core.data", "pretrain.methods", "pretrain.branches", "pretrain.masks", "pretrain.fills"],
)
def test_every_plug_in_exports_one_class_named_like_its_file_with_settings_that_name_it(package):
    found = {name: find(package, name) for name in names(package)}
    assert found, package
    for name, member in found.items():
        assert "Config" in vars(member), "its own, not an inherited one"
        assert member.Config.model_fields["name"].default == name
        assert member.__doc__, name
        assert __import__(member.__module__, fromlist=["x"]).__doc__, name


def test_a_plug_in_choice_needs_a_name():
    class Chooses(Settings):
        mask: choice("pretrain.masks")

    with pytest.raises(InputError, match=r"give a mapping with the key 'name'; pretrain\.masks has: balanced, block"):
        parse(Chooses, {"mask": {"cells": 4}})


@pytest.mark.parametrize("ratio", [1e-8, 1 - 1e-9])
def test_a_ratio_that_rounds_to_no_cell_or_all_cells_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match="cannot hide exactly"):
        Discrete(Discrete.Config(cells=8, ratio=ratio))


@pytest.mark.parametrize(("cells", "ratio"), [(3, 0.5), (2, 0.999), (2, 0.01), (7, 0.5), (12, 0.3), (2, 0.6)])
def test_the_ratio_that_a_refusal_advises_is_accepted(cells: int, ratio: float) -> None:
    with pytest.raises(InputError) as error:
        Discrete(Discrete.Config(cells=cells, ratio=ratio))
    advice = re.findall(r"\d\.\d+|\b1\b", str(error.value).split("take")[1].split("another")[0])
    assert advice
    for text in advice:
        mask = Discrete(Discrete.Config(cells=cells, ratio=float(text))).draw(torch.Generator(), cells)
        assert mask.float().mean().item() == pytest.approx(float(text), abs=1e-3)


@pytest.mark.parametrize(
    "values",
    [
        {"scale": (-1.0, 1.0)}, {"scale": (1.0, 0.2)}, {"scale": (0.0, 0.0)}, {"scale": (0.2, 3.0)},
        {"blur_sigma": (2.0, 0.1)}, {"blur_sigma": (-1.0, 2.0)}, {"std": (0.0, 1.0, 1.0)},
        {"mean": (123.675, 116.28, 103.53)}, {"std": (58.395, 57.12, 57.375)}, {"scale": (float("nan"), 1.0)},
    ],
)  # fmt: skip
def test_view_settings_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(ValidationError):
        ViewSettings(**values)


def test_an_even_high_pass_kernel_is_refused() -> None:
    with pytest.raises(ValidationError):
        Mscn.Config(high_pass_kernel=10)


def test_infinite_settings_are_refused() -> None:
    with pytest.raises(ValidationError):
        Moco.Config(temperature=float("inf"))


def test_a_scene_size_that_cannot_be_rendered_is_refused_with_the_settings() -> None:
    with pytest.raises(ValidationError):
        Shapes.Config(size=16)


@pytest.mark.parametrize("base", ["null", "[3]"])
def test_a_base_that_is_no_path_is_refused(tmp_path: Path, base: str) -> None:
    (tmp_path / "run.yaml").write_text(f"_base_: {base}\nx: 1\n")
    with pytest.raises(InputError, match="_base_"):
        config.load(tmp_path / "run.yaml")


def test_a_folder_name_that_a_config_cannot_keep_is_refused_before_it_is_written() -> None:
    values = {
        "backbone": {"name": "resnet"},
        "data": {"name": "imagefolder", "root": "a${b}"},
        "method": {"name": "moco"},
    }
    parsed = config.parse(PretrainSettings, values)
    with pytest.raises(InputError, match="cannot be kept in a config"):
        config.dump(parsed)


def test_an_override_with_an_empty_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("x: 1\n")
    for override in ("=1", "a..b=2", "x=???"):
        with pytest.raises(InputError, match="override"):
            config.load(tmp_path / "run.yaml", [override])


def test_folders_that_are_links_are_looked_into_and_folders_named_like_images_are_not_images(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "real" / "a.jpg")
    (tmp_path / "root" / "not_an_image.jpg").mkdir(parents=True)
    (tmp_path / "root" / "class").symlink_to(tmp_path / "real")
    images = ImageFolder(ImageFolder.Config(root=tmp_path / "root"))
    assert [path.name for path in images.paths] == ["a.jpg"]
