"""A run's settings survive being written and read, and overrides say the same as the file."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import config
from core.errors import InputError
from pretrain.config import PretrainSettings

SHARE = st.floats(0, 1)
ABOVE_ZERO = st.floats(1e-12, 1e6)
INSIDE = st.floats(0.001, 0.999)
RANGE = st.tuples(INSIDE, INSIDE).map(sorted)
# any name that a user may give a folder; "${" starts an interpolation in a config file, so it cannot be part of one
SEED = st.integers(1 - 2**63, 2**63 - 1)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="$\\\x7f\x85"), max_size=12)


def some(**optional: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Draw a mapping that holds any of these keys."""
    return st.fixed_dictionaries({}, optional=optional)


def named(name: str, required: dict | None = None, **optional: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Draw a plug-in's settings."""
    return st.fixed_dictionaries({"name": st.just(name)} | (required or {}), optional=optional)


GRID = {"cells": st.integers(2, 16), "ratio": INSIDE | RANGE}
MASKS = st.one_of(
    named("block", **GRID), named("discrete", **GRID), named("channelwise", **GRID), named("focal", ratio=RANGE)
)
FILLS = st.one_of(named("zero"), named("mean"), named("noise", std=ABOVE_ZERO))
MIXMASK = named(
    "mixmask", {"mask": MASKS}, weight=ABOVE_ZERO, partner=st.sampled_from(["reverse", "shuffle"]),
    scope=st.sampled_from(["image", "batch"]),
)  # fmt: skip
MSCN = named(
    "mscn", weight=ABOVE_ZERO, cell=st.integers(1, 64), ratio=RANGE, focal_share=SHARE, channelwise_share=SHARE,
    high_pass=st.booleans(), high_pass_sigma=ABOVE_ZERO, fill=FILLS, sides=st.sampled_from(["both", "query"]),
)  # fmt: skip
LABELS = st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(["null", "true", "on", "no", "y", "e5"])
DATA = st.one_of(
    named("shapes", count=st.integers(1, 10**6), size=st.integers(32, 512), scene_seed=SEED),
    named("imagefolder", {"root": TEXT}, damaged=st.sampled_from(["skip", "refuse"])),
    named("cifar", root=TEXT, split=st.sampled_from(["train", "test"])),
    named("tar_shards", {"root": TEXT}, under=TEXT),
)
METHOD = named(
    "moco", temperature=ABOVE_ZERO, queue=st.integers(1, 10**6), key_momentum=st.floats(0, 0.9999),
    hidden=st.none() | st.integers(1, 4096), symmetric=st.booleans(), split_bn=st.integers(1, 8),
)  # fmt: skip
RUNS = st.fixed_dictionaries(
    {"backbone": named("resnet", depth=st.sampled_from([18, 34, 50, 101])), "data": DATA, "method": METHOD},
    optional={
        "views": some(size=st.integers(8, 512), scale=RANGE, hue=st.floats(0, 0.5), blur_sigma=RANGE),
        "plain_weight": st.floats(0, 1e6),
        "branches": st.dictionaries(LABELS, MIXMASK | MSCN, max_size=3),
        "optimizer": some(lr=ABOVE_ZERO, momentum=INSIDE, weight_decay=SHARE),
        "schedule": some(name=st.sampled_from(["cosine", "constant"]), warmup=INSIDE),
        "train": some(epochs=st.integers(1, 10**6), batch_size=st.integers(2, 10**6)),
        "run": some(folder=st.none() | TEXT, seed=SEED, threads=st.none() | st.integers(1, 64)),
    },
)


def written(text: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Write ``text`` as a config file and load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(path, overrides or [])


@given(RUNS)
@settings(max_examples=25)
def test_settings_written_and_read_again_are_equal(values: dict) -> None:
    parsed = config.parse(PretrainSettings, values)
    again = config.parse(PretrainSettings, written(config.dump(parsed)))
    assert again == parsed
    assert list(again.branches) == list(parsed.branches)  # the first branch's keys may be the ones remembered
    assert config.dump(again) == config.dump(parsed)


@given(st.integers(1, 10**6), ABOVE_ZERO, st.booleans(), SEED)
@settings(max_examples=10)
def test_an_override_says_the_same_as_the_file(epochs: int, lr: float, symmetric: bool, seed: int) -> None:
    values = {"backbone": {"name": "resnet"}, "data": {"name": "shapes"}, "method": {"name": "moco"}}
    base = config.dump(config.parse(PretrainSettings, values))
    overrides = [f"train.epochs={epochs}", f"optimizer.lr={lr!r}", f"method.symmetric={symmetric}", f"run.seed={seed}"]
    found = config.parse(PretrainSettings, written(base, overrides))
    assert (found.train.epochs, found.optimizer.lr) == (epochs, lr)
    assert (found.method.symmetric, found.run.seed) == (symmetric, seed)


@given(
    st.sampled_from(["train", "run", "views", "method", "backbone", "data"]), st.text("abcxyz", min_size=4, max_size=9)
)
@settings(max_examples=10)
def test_an_unknown_key_is_refused_by_its_path_beside_every_other_problem(section: str, key: str) -> None:
    values: dict = {"backbone": {"name": "resnet"}, "data": {"name": "shapes"}, "method": {"name": "moco"}}
    values |= {"plain_weight": -1, section: {**values.get(section, {}), key: 1}}
    with pytest.raises(InputError) as error:
        config.parse(PretrainSettings, values, "run.yaml")
    assert f"{section}.{key}" in str(error.value)
    assert "plain_weight" in str(error.value)
    assert "run.yaml has 2 problem(s)" in str(error.value)
