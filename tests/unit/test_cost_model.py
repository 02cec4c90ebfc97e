"""docs/scaling.md is what the cost model says now, and the model's bytes and FLOPs are those of a count by hand."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import cost_model

    return cost_model


def test_one_gpu_talks_to_nobody(model: ModuleType) -> None:
    one = model.step(1, 4, model.Counts(forward=1e9, parameters=1000), model.Links(tflops=1, pcie=2))
    assert one.bytes["gradients"] == one.bytes["key images"] == one.bytes["keys"] == 0
    assert one.bytes["from the host"] == 4 * (2 * (3 * 224 * 224 + 32) + 224 * 224)
    assert one.seconds["from the host"] == pytest.approx(4 * (2 * (3 * 224 * 224 + 32) + 224 * 224) / 2e9)
    logits = 128 * 65536 * 2 * 2 * 2  # a multiplication and an addition; forward and backward; clean and mixed queries
    assert one.flops == 4 * (7e9 + logits)
    assert one.seconds["arithmetic"] == pytest.approx(one.flops / 1e12)


def test_four_gpus_share_gradients_around_a_ring_and_gather_keys(model: ModuleType) -> None:
    step = model.step(4, 2, model.Counts(forward=1e9, parameters=1000), model.Links(nvlink=1, network=1000))
    assert (
        step.bytes["gradients"] == 2 * 3 / 4 * 4000
    )  # a quarter three times to be summed, three times to be given back
    assert step.bytes["key images"] == 3 / 4 * 2 * 3 * 224 * 224 * 4  # a quarter stays where it is
    assert step.bytes["keys"] == (3 / 4 + 3) * 2 * 128 * 4  # back into order, and into the queue
    assert step.seconds["gradients"] == pytest.approx(6000 / 1e9)  # in one node
    assert model.step(16, 2, model.Counts(1e9, 1000), model.Links(nvlink=1, network=1000)).seconds["keys"] < 1e-6


def test_the_network_that_is_counted_is_the_one_that_is_trained(model: ModuleType) -> None:
    counts = model.counted()
    projector = 2048 * 2048 + 2048 + 2048 * 128 + 128
    assert counts.parameters == 23_508_032 + projector  # torchvision's ResNet-50 without its classifier
    assert counts.forward / 2e9 == pytest.approx(4.1, abs=0.1)  # 4.1 billion multiplications (arXiv 1512.03385: 3.8)


def test_the_rate_of_a_core_is_the_input_pipelines_own_where_it_was_measured(model: ModuleType, tmp_path: Path) -> None:
    about = {"environment": {"processor": "A Chip"}}
    (tmp_path / "scaling.json").write_text(json.dumps(about | {"images_per_second": {"data": 146.2, "step": 6}}))
    assert model.rate(tmp_path) == (146.2, "scaling.py, A Chip")
    detail = "photographs, 500x375; ours 1,573, PIL 79 images/s on one core"
    (tmp_path / "input_pipeline.json").write_text(json.dumps(about | {"figures": [{"detail": detail}]}))
    assert model.rate(tmp_path) == (1573, "input_pipeline.py, A Chip")
    (tmp_path / "input_pipeline.json").write_text(json.dumps(about | {"figures": [{"detail": "PIL 79 images/s"}]}))
    assert model.rate(tmp_path)[0] == 146.2


def test_the_shipped_table_is_current(model: ModuleType) -> None:
    page = model.PAGE.read_text()
    written = page.split(model.MARKS[0])[1].split(model.MARKS[1])[0].strip()
    assert written == model.table(model.counted(), model.Links(), *model.rate())
