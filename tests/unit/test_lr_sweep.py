"""A learning rate is chosen on held-out training images, and every rate that was tried is told."""

from typing import Any

import pytest

from core.errors import InputError
from transfer.suite import lr_sweep


def evaluation(score: float | None, factor: float) -> dict[str, Any]:
    effective = {"effective": {"lr": 0.02 * factor}}
    return {"metrics": {"bbox/AP": score, "bbox/AP-cat": 1.0}, "recipe": effective, "seconds": 5.0}


def test_the_best_rate_is_chosen_and_all_are_reported() -> None:
    scores = {0.3: 10.0, 1.0: 12.0, 3.0: 11.0}
    found = lr_sweep.sweep(tuple(scores), lambda f: evaluation(scores[f], f), "bbox/AP", 0.1)
    assert (found["chosen"], found["metric"], found["hold_out"]) == (1.0, "bbox/AP", 0.1)
    assert [(run["factor"], run["score"], run["seconds"]) for run in found["runs"]] == [
        (0.3, 10.0, 5.0),
        (1.0, 12.0, 5.0),
        (3.0, 11.0, 5.0),
    ]
    assert found["runs"][2]["lr"] == pytest.approx(0.06)
    assert found["runs"][0]["metrics"] == {"bbox/AP": 10.0}


def test_of_equal_scores_the_rate_nearest_the_published_one_is_chosen() -> None:
    assert lr_sweep.sweep((0.1, 2.0, 3.0), lambda f: evaluation(7.0, f), "bbox/AP", 0.1)["chosen"] == 2.0
    assert lr_sweep.sweep((10.0, 0.5), lambda f: evaluation(None, f), "bbox/AP", 0.1)["chosen"] == 0.5


def test_a_rate_that_diverged_is_reported_and_never_chosen() -> None:
    def measure(factor: float) -> dict[str, Any]:
        if factor > 1:
            raise InputError("the loss is nan at step 7")
        return evaluation(None, factor)

    found = lr_sweep.sweep((3.0, 1.0), measure, "bbox/AP", 0.1)
    assert found["chosen"] == 1.0
    assert found["runs"][0] == {"factor": 3.0, "score": None, "error": "the loss is nan at step 7"}
    with pytest.raises(InputError, match="every learning rate of the sweep failed; at the first: the loss is nan"):
        lr_sweep.sweep((3.0, 9.0), measure, "bbox/AP", 0.1)


def test_several_held_out_sets_count_alike() -> None:
    metrics = {"a+held0.1/bbox/AP": 10.0, "b+held0.1/bbox/AP": 30.0, "a+held0.1/bbox/AP50": 90.0}
    assert lr_sweep.mean_of(metrics, "bbox/AP") == 20.0
    assert lr_sweep.mean_of({"a/bbox/AP": None, "b/bbox/AP": 4.0}, "bbox/AP") == 4.0
    assert lr_sweep.mean_of({}, "bbox/AP") is None


@pytest.mark.parametrize("text", ["", "1", "1,1", "0,1", "-1,1", "a,b", "nan,1", "inf,1"])
def test_what_is_no_list_of_factors_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="give two or more different factors"):
        lr_sweep.parse(text)
    assert lr_sweep.parse("0.3,1,3") == (0.3, 1.0, 3.0)
