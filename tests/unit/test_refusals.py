"""Settings that cannot work are refused, and what an error advises is accepted."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from core import config
from core.data.imagefolder import ImageFolder
from core.data.shapes import Shapes
from core.errors import InputError
from pretrain.branches.mscn import Mscn
from pretrain.config import PretrainSettings
from pretrain.masks.discrete import Discrete
from pretrain.methods.moco import Moco
from pretrain.views import ViewSettings


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
