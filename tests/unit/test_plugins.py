"""A plug-in stands in its folder or in a package of the user's; one written wrong is answered with what it must hold."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from core import plugins
from core.config import parse
from core.errors import InputError
from pretrain import masks
from pretrain.setup import make_trainer
from transfer.suite import execution
from transfer.suite.execution import Limits, Work
from transfer.suite.items import Item
from transfer.suite.settings import Suite

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that puts a file of masks beside the shipped ones."""
    monkeypatch.setattr(masks, "__path__", [*masks.__path__, str(tmp_path)])

    def put(text):
        (tmp_path / "my_stripes.py").write_text(text)
        sys.modules.pop("pretrain.masks.my_stripes", None)

    yield put
    sys.modules.pop("pretrain.masks.my_stripes", None)


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    """Write the files of docs/plugins.md, and images for its config; return the config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", (DOCS / "plugins.md").read_text(), re.S):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, (16, 3, 40, 40), np.uint8))
    yield Path("stripes.yaml")
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


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


def test_a_mask_and_a_source_of_a_users_package_train_and_go_on(my_lab):
    trainer = make_trainer(my_lab)
    trainer.run()
    assert trainer.step == 2
    kept = yaml.safe_load((trainer.folder / "config.yaml").read_text())
    assert (kept["data"]["name"], kept["data"]["file"]) == ("my_lab.data:Arrays", "images.npy")
    assert kept["branches"]["striped"]["mask"] == {"name": "my_lab.masks:Stripes", "width": 4}
    assert make_trainer(my_lab).step == 2
    with pytest.raises(InputError, match=r"other settings \(different: branches\.striped\.mask\.width\)"):
        make_trainer(my_lab, ["branches.striped.mask.width=8"])


def test_a_launcher_of_a_users_package_executes_a_suites_items(my_lab):
    values = {
        "name": "mine",
        "benchmarks": ["shapes_detection"],
        "checkpoints": {"random": {"random": {"backbone": {"name": "resnet", "depth": 18}, "seed": 0}}},
        "launcher": {"name": "my_lab.launchers:OneByOne", "device": "7"},
    }
    settings = parse(Suite, values)
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    items, after = [], ""
    for name in ("first", "second"):
        made = Path("out", name, "product")
        command = (sys.executable, "-S", "-c", code, str(made))
        items.append(Item(name, "random", name, made.parent, command, after=after, checkpoint_file=made))
        after = name
    statuses = execution.standing(items)
    launcher = plugins.build("transfer.suite.launchers", settings.launcher, threads=1, folder=Path("out"))
    launcher.run(Work(items, statuses, lambda item: None, Limits()))
    assert [statuses[item.name].state for item in items] == ["done", "done"]
    assert [item.checkpoint_file.read_text() for item in items] == ["7", "7"]


def test_a_run_folder_cannot_have_a_module_imported_that_the_config_does_not_name(my_lab):
    trainer = make_trainer(my_lab)
    Path("planted.py").write_text("open('code-ran.txt', 'w')")
    kept = trainer.folder / "config.yaml"
    kept.write_text(kept.read_text().replace("my_lab.data:Arrays", "planted:Arrays"))
    with pytest.raises(InputError, match=r"planted:Arrays is named by a run folder only"):
        make_trainer(my_lab)
    with pytest.raises(InputError, match=r"no 'planted:Arrays' in core\.backbones"):
        plugins.find("core.backbones", "planted:Arrays")  # as a checkpoint's recipe is read
    assert not Path("code-ran.txt").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such:Mask", "cannot import no_such for no_such:Mask .*install its package or set PYTHONPATH"),
        ("broken:Mask", r"cannot import broken for broken:Mask \(ZeroDivisionError: division by zero\)"),
        ("my_lab.masks:Nothing", "my_lab.masks:Nothing is no class that extends Mask or BlindMask"),
        ("my_lab.data:Arrays", "is no class that extends Mask"),
    ],
)
def test_what_an_outside_name_lacks_is_said(my_lab, name, said):
    Path("broken.py").write_text("1 / 0")
    with pytest.raises(InputError, match=said):
        make_trainer(my_lab, [f"branches.striped.mask.name={name}"])
