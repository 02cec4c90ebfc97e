"""Write docs/protocols.md: every benchmark's rules, read from its row, its config and the published numbers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core import config
from core.files import write_atomic
from core.provenance import ROOT
from transfer import benchmarks, frameworks
from transfer.benchmarks import Benchmark
from transfer.report import published

PAGE = ROOT / "docs" / "protocols.md"
TEXT = Path(__file__).parent / "protocols_text.md"  # the page's prose; the line TABLES stands for the tables
TITLES = {"detectron2": "Detection", "mmseg": "Segmentation", "classification": "Classification"}
COLUMNS = (
    "Benchmark",
    "Data: train → test",
    "Schedule",
    "Batch",
    "lr",
    "Norm",
    "Metrics (headline first)",
    "Trials",
    "Published",
)
ROWS = ("random init", "supervised", "MoCo v2")  # of a published table, where it has them


def write(page: Path = PAGE) -> None:
    """Write the page; the frameworks are imported to read their configs, which takes half a minute."""
    write_atomic(page, text())


def text() -> str:
    """Return the page."""
    sections = []
    for framework, title in TITLES.items():
        found = [name for name, row in benchmarks.shipped().items() if row.framework == framework]
        sections.append(f"## {title}\n\n{table(found)}\n{sources(found)}")
    return TEXT.read_text().replace("TABLES\n", "\n".join(sections))


def table(names: Iterable[str]) -> str:
    """Return a Markdown table with one benchmark a row."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row(name) for name in names)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def row(name: str) -> tuple[str, ...]:
    """Return the cells of a benchmark."""
    benchmark = benchmarks.find(name)
    facts = frameworks.of(benchmark).summary(benchmark.config_file)
    training = _trained(facts) if facts else _classified(config.load(benchmark.config_file).get("task", {}))
    metrics = (benchmark.headline, *(metric for metric in benchmark.metrics if metric != benchmark.headline))
    return (
        f"`{name}`",
        f"{benchmark.train} → {benchmark.test}",
        *training,
        ", ".join(metrics),
        str(benchmark.trials),
        reference(name, benchmark) or "–",
    )


def sources(names: Iterable[str]) -> str:
    """Return what each benchmark says of itself, its source and what it must not be mixed up with, with its config."""
    lines = []
    for name in names:
        benchmark = benchmarks.find(name)
        lines.append(
            f"- `{name}`: {benchmark.about} {benchmark.note} [{Path(benchmark.config).name}](../{benchmark.config})\n"
        )
    return "".join(lines)


def reference(name: str, benchmark: Benchmark) -> str:
    """Return some published values of the headline under the same protocol, with how many more there are."""
    shown: list[str] = []
    count = 0
    for group in published.of(name):
        searched = ", learning rate searched" if group.swept else ""
        for line in group.rows if group.comparable else ():
            value = group.value(line, benchmark.headline)
            if value is not None:
                count += 1
                if line.name in ROWS and not any(text.startswith(line.name) for text in shown):
                    shown.append(f"{line.name} {value:g} ({line.source}{searched})")
    more = f"; {count - len(shown)} more" if count > len(shown) else ""
    return "; ".join(shown) + more if shown else f"{count} rows" if count else ""


def _trained(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return schedule, batch, lr and norm of a framework's config."""
    steps = f", ×0.1 at {_numbers(facts['steps'])}" if facts["steps"] else ""
    warm_up = f", warm-up {facts['warm_up']:,}" if facts["warm_up"] else ""
    devices, batch = facts["devices"], facts["batch"]
    schedule = f"{facts['iterations']:,} iterations{steps or ', polynomial'}{warm_up}"
    return schedule, f"{batch} ({devices} × {batch // devices})", f"{facts['lr']:g}", facts["norm"]


def _classified(task: dict[str, Any]) -> tuple[str, ...]:
    """Return the same of this project's own classification configs."""
    if "costs" in task:
        costs = f"{task['costs'][0]:g} to {task['costs'][-1]:g}"
        return f"one SVM a class, {len(task['costs'])} costs from {costs}", "–", "–", "frozen"
    if "epochs" not in task:
        return "nothing is trained", "–", "–", "frozen"
    steps = f", ×{task.get('factor', 0.1):g} at {_numbers(task['milestones'])}" if task.get("milestones") else ""
    head = f" (head {task['head_lr']:g})" if "head_lr" in task else ""
    norm = "frozen" if task.get("name") == "linear" else "trained"
    return f"{task['epochs']} epochs{steps}", str(task.get("batch", "–")), f"{task.get('lr', 0):g}{head}", norm


def _numbers(values: Iterable[int]) -> str:
    return " / ".join(f"{value:,}" for value in values)
