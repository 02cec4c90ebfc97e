"""Write a backbone for a target so that nothing is written unless it is proven: write, read back, compare, rename."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.backbones import Backbone, without_values
from core.files import FileError, replacing, temporary_folder, unwritable, write_json
from core.weights_file import SEAL, read_weights_file, tensors_sha256
from transfer.convert.load_check import compare
from transfer.convert.read import Recognised
from transfer.convert.recipe import Recipe
from transfer.convert.targets import Target

TOLERANCE = 1e-5  # of the stage's largest value, or of 1; fp32 networks with the same weights differ by rounding only
IMAGE = (1, 3, 64, 64)  # of what both networks are shown

Features = dict[str, tuple[float, float]]  # stage -> the largest difference, the largest value


def write_proven(output: Path, target: Target, found: Recognised, recipe: Recipe) -> tuple[int, Features]:
    """Write beside ``output``, read back, compare tensors and features; only then rename onto ``output``.

    Return the number of tensors in the file, and what the comparison of features found.
    """
    try:
        with temporary_folder(output.parent, output.name) as folder:
            draft = folder / target.file(output).name
            write(draft, target, found.family.export(found.tensors, target.naming or target.name), recipe)
            read_back = unpack(target, read_weights_file(draft, own=True))  # every tensor is compared just below
            _compare_tensors(output, read_back, found)
            features = _compare_features(output, target, read_back, found, recipe)
            if target.folder:
                output.mkdir(exist_ok=True)
                write_json(output / "config.json", target.config(recipe))
            os.replace(draft, target.file(output))
    except OSError as error:
        raise unwritable(output, error, "choose another output") from error
    return len(read_back), features


def write(file: Path, target: Target, tensors: dict[str, Tensor], recipe: Recipe) -> None:
    """Write the tensors in the target's form; the suffix tells a pickle of arrays, safetensors and ``torch.save`` apart."""
    if file.suffix == ".safetensors":
        from safetensors.torch import save_file

        # ``format: pt`` is what timm and transformers look for
        facts = {"recipe": json.dumps(recipe.to_dict(), sort_keys=True), SEAL: tensors_sha256(tensors)}
        save_file(tensors, file, {"format": "pt", **facts})
        return
    held = {name: tensor.numpy() for name, tensor in tensors.items()} if file.suffix == ".pkl" else tensors
    content: dict[str, Any] = (
        {target.container: held, **target.beside, "recipe": recipe.to_dict()} if target.container else held
    )
    if file.suffix == ".pkl" and target.container == "model":
        content[SEAL] = tensors_sha256(held)
    with replacing(file) as opened:
        if file.suffix == ".pkl":
            pickler = pickle.Pickler(opened, protocol=4)
            pickler.fast = True  # nothing occurs twice: arrays' bytes need not be kept until the end
            pickler.dump(content)
        else:
            torch.save(content, opened)


def unpack(target: Target, file: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a file that was read back, under the framework's names."""
    held = file["state_dict"] if "state_dict" in file else file.get(target.container, file)
    return {name: torch.as_tensor(value) for name, value in held.items()}


def _compare_tensors(output: Path, read_back: dict[str, Tensor], found: Recognised) -> None:
    """Take the file's tensors back to our names and compare them bit for bit."""
    again = found.family.native(read_back)
    assert again is not None, "a family must read what it writes"
    for name, tensor in found.tensors.items():
        if name not in again[1] or not torch.equal(again[1][name], tensor):
            raise FileError(f"{output}: {name} is not the same when read back; nothing was written, please report this")


@torch.no_grad()
def _compare_features(
    output: Path, target: Target, read_back: dict[str, Tensor], found: Recognised, recipe: Recipe
) -> Features:
    """Return each stage's largest difference between our network and the target's, and its largest feature."""
    with without_values():
        reference, theirs = found.family(found.config), target.build(recipe)
    reference.load_state_dict(found.tensors, strict=False, assign=True)
    if isinstance(theirs, Backbone):  # our own network: a file for any code has the names that the library gives them
        _, read_back = found.family.native(read_back) or ("", read_back)
    theirs.load_state_dict(read_back, strict=False, assign=True)  # files carry no num_batches_tracked
    compare(theirs.state_dict(), read_back, str(output))
    reference.eval()
    theirs.eval()  # MMSegmentation's returns None there, so it cannot be chained
    image = torch.randn(IMAGE, generator=torch.Generator().manual_seed(0))
    features = {
        f"layer{index}": (float((a - b).abs().max()), float(a.abs().max()))
        for index, (a, b) in enumerate(zip(reference.stages(image), target.stages(theirs, image), strict=True), 1)
    }
    for stage, (difference, largest) in features.items():
        if not difference < TOLERANCE * max(1.0, largest):
            raise FileError(
                f"{output}: features of {stage} differ by {difference:.2g}; nothing was written, please report this"
            )
    return features
