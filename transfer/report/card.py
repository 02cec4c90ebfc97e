"""The model card of a folder for the Hugging Face Hub: how weights were made, are used, were proven and measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.files import write_atomic
from transfer import results as records
from transfer.report import statistics, wording
from transfer.report.markdown import escape, table
from transfer.results import Result

if TYPE_CHECKING:
    from transfer.convert.convert import Proof

TASKS = {"detectron2": "object-detection", "mmseg": "image-segmentation", "classification": "image-classification"}


def convert(
    source: Path | str,
    output: Path | str,
    *,
    results: Sequence[Path] = (),
    license: str = "",
    target: str = "hf",
    **options: Any,
) -> "Proof":
    """Convert as ``transfer.convert.convert`` does, and write the model card of ``target`` hf into the folder.

    ``results`` are folders, packed files or ``result.json`` with measurements of the same checkpoint. Raises InputError.
    """
    from core import remote, weights_file  # here, with torch: a report needs none of them
    from transfer.convert import convert as converter

    if target != "hf":
        if results or license:
            raise InputError("results and license are for the model card of target hf; leave them out")
        return converter.convert(source, output, target=target, **options)
    source = remote.local(source)
    digest = weights_file.digest(source)
    own = measured(results, digest)  # first: nothing is written for results of something else
    proof = converter.convert(source, output, target=target, source_sha256=digest, **options)
    name = Path(output).name
    lines = ["---", _metadata(name, own, license), "---", "", *_lines(name, proof, converter.table(proof), own)]
    write_atomic(Path(output) / "README.md", "\n".join(lines) + "\n")
    return proof


def measured(folders: Sequence[Path], sha256: str) -> list[Result]:
    """Return the results of one checkpoint file from results folders, packed files and single result files.

    Raises InputError when there are none, or a file cannot be read.
    """
    found: dict[Path, Result] = {}
    for given in folders:
        if given.name == records.FILE:
            given = given.parent
        with records.opened(given) as folder:
            found |= records.read_folder(folder).results
    own = [result for result in found.values() if result.checkpoint.sha256 == sha256]
    if folders and not own:
        names = sorted({result.checkpoint.name for result in found.values()})
        raise InputError(
            f"{', '.join(map(str, folders))}: no result of this checkpoint (sha256 {sha256[:12]}) but of "
            f"{', '.join(names) or 'none'}; give the file that was measured, or other --results"
        )
    return own


Cell = tuple[
    Result, str, statistics.Summary, str
]  # a trial of it, the metric, its values, what departs from the protocol


def _cells(own: Sequence[Result]) -> Iterator[Cell]:
    """Yield every metric over all classes of every benchmark, the headline first, over the trials under one protocol."""
    trials: dict[tuple[str, str], list[Result]] = {}
    for result in own:
        trials.setdefault((result.benchmark, result.protocol.hash), []).append(result)
    for group in trials.values():
        first = group[0]
        names = dict.fromkeys(
            (first.protocol.headline, *first.protocol.metrics, *(() if first.protocol.metrics else first.metrics))
        )
        for name in filter(None, names):
            if values := [value for result in group if (value := result.metrics.get(name)) is not None]:
                yield first, name, statistics.summarise(values), " ".join(first.protocol.options)


def _metadata(name: str, own: Sequence[Result], license: str) -> str:
    """Return the Hub's YAML: https://huggingface.co/docs/hub/model-cards."""
    from huggingface_hub import EvalResult, ModelCardData  # here: only a card needs the Hub's client

    evaluations = [
        EvalResult(
            task_type=TASKS.get(result.framework, "image-feature-extraction"),
            dataset_type=result.protocol.test or result.benchmark,
            dataset_name=result.protocol.title or result.benchmark,
            metric_type=metric,
            metric_value=round(summary.mean, 4),
            metric_name=f"{metric}, mean of {summary.count} trial{'s' * (summary.count > 1)}",
        )
        for result, metric, summary, _ in _cells(own)
    ]
    data = ModelCardData(
        license=license or None,
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["timm", "image-feature-extraction", "masktransfer"],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )
    return data.to_yaml().strip()


def _lines(name: str, proof: "Proof", shown: str, own: Sequence[Result]) -> Iterator[str]:
    recipe = proof.recipe
    yield f"# {escape(name)}"
    yield ""
    yield f"A {escape(proof.arch)} backbone without a classifier. It gives feature maps of strides 4, 8, 16 and 32."
    yield from ("", "## How it was trained", "")
    yield from (
        f"- {escape(line)}"
        for line in wording.pretrained(recipe.get("pretrain") or {}) or ["the checkpoint does not say"]
    )
    yield from ("", "## How it is used", "", "```python", "import timm", "")
    yield 'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True, features_only=True)  # or local-dir:FOLDER'
    yield from ("```", "")
    told = [
        ("channels", recipe["channel_order"]),
        ("mean, of 0 to 255", wording.plain(recipe["mean"])),
        ("std", wording.plain(recipe["std"])),
        ("stride of bottlenecks", f"in the {'1x1' if recipe['stride_in_1x1'] else '3x3'} convolution"),
    ]
    yield from table(["recipe", ""], told[: 4 if recipe["family"] == "resnet" else 3])
    yield from ("", "## What is in the file", "")
    yield (
        f"{proof.tensors_mapped} of {proof.tensors_expected} tensors of the four stages, bit for bit, from a checkpoint in the "
        f"layout of {escape(proof.source)}. Each stage's largest feature, and its largest difference between timm's network with "
        "this file and the network that the checkpoint was read into, on two random images:"
    )
    yield from ("", "```text", shown.replace("`", ""), "```", "")
    yield from (f"- {escape(note)}" for note in proof.notes)
    if cells := list(_cells(own)):
        yield from (
            "",
            "## Evaluation",
            "",
            "Fine-tuned from these weights; percent, mean ± sample std over trials.",
            "",
        )
        found = [
            (
                result.protocol.title or result.benchmark,
                metric,
                wording.measured(summary),
                str(summary.count),
                departs or "–",
                result.protocol.hash[:12],
            )
            for result, metric, summary, departs in cells
        ]
        yield from table(["benchmark", "metric", "value", "trials", "departs from its protocol", "protocol"], found)
