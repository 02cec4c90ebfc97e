"""Log a report's trials to a tracking service that the user named; neither library is imported unless asked for.

Each trial is one run with its own metrics, so that a service can average and filter as it does with any others.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from core.errors import InputError
from transfer.report.model import Report
from transfer.results import Result

INSTALL = "install it with: pip install -e .[tracking]"


def log(report: Report, service: str, project: str = "") -> int:
    """Send every trial to ``service`` (``mlflow`` or ``wandb``) and return how many; where to, the service's own
    environment variables say. Raises InputError for an unknown service, or when its library is missing or refuses.
    """
    if service not in SERVICES:
        raise InputError(f"no tracking service {service!r}; there are: {', '.join(SERVICES)}")
    module, send = SERVICES[service]
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{service} cannot be imported ({error}); {INSTALL}, or leave out --log") from error
    count = 0
    for name, result in _runs(report):
        try:
            send(library, project or report.title, name, result)
        except Exception as error:  # a service fails in its own ways: network, login, disk
            raise InputError(f"{service} failed after {count} of {report.trials} trials: {error}") from error
        count += 1
    return count


def _runs(report: Report) -> Iterator[tuple[str, Result]]:
    for row in report.rows:
        for column in report.columns:
            for _, result in report.cell(row, column).trials:
                yield f"{row.label} · {column.label} · trial {result.trial}", result


def _facts(result: Result) -> dict[str, Any]:
    """Return what tells trials apart, as plain values."""
    facts = {
        "checkpoint": result.checkpoint.name,
        "sha256": result.checkpoint.sha256,
        "method": result.checkpoint.method,
        "branches": "+".join(result.checkpoint.branches),
        "benchmark": result.benchmark,
        "protocol_hash": result.protocol.hash,
        "framework": result.framework,
        "trial": result.trial,
        "seed": result.seed,
        "command": result.command,
    }
    return {key: value for key, value in facts.items() if value is not None and value != ""}


def _numbers(result: Result) -> dict[str, float]:
    cost = {"cost/seconds": result.cost.seconds, "cost/peak_memory_mib": result.cost.peak_memory_mib}
    return {key: value for key, value in (result.metrics | cost).items() if value is not None}


def _to_mlflow(mlflow: Any, project: str, name: str, result: Result) -> None:
    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=name):
        mlflow.log_params({key: str(value)[:500] for key, value in _facts(result).items()})
        mlflow.log_metrics({_mlflow_name(key): value for key, value in _numbers(result).items()})


def _mlflow_name(metric: str) -> str:
    """Replace what MLflow admits in no metric's name."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in metric)


def _to_wandb(wandb: Any, project: str, name: str, result: Result) -> None:
    group = f"{result.checkpoint.name} · {result.benchmark}"
    run = wandb.init(project=project, name=name, group=group, config=_facts(result))
    run.log(_numbers(result))
    run.finish()


SERVICES: dict[str, tuple[str, Callable[[Any, str, str, Result], None]]] = {
    "mlflow": ("mlflow", _to_mlflow),
    "wandb": ("wandb", _to_wandb),
}
