"""The proof for machines with GPUs runs to its end on a runtime that computes nothing, and proves nothing there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nullcuda
import pytest

ROOT = Path(__file__).resolve().parents[2]
reason = nullcuda.why_not()


@pytest.mark.skipif(reason is not None, reason=str(reason))
def test_the_proof_runs_to_its_end_and_says_that_nothing_is_proven(tmp_path: Path) -> None:
    null = {**os.environ, **nullcuda.environment(), "PYTHONPATH": str(ROOT), "TORCH_COMPILE_DISABLE": "1"}
    command = [sys.executable, str(ROOT / "tools/prove_gpu.py"), "--short", "--out", str(tmp_path / "proof.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=null, cwd=tmp_path, timeout=400)
    proof = json.loads((tmp_path / "proof.json").read_text())
    missed = [check for check in proof["checks"] if check["verdict"] == "missed"]
    assert missed == [], done.stderr
    assert (proof["summary"]["met"], proof["facts"]["device"]) == (0, "NULL H100")
    proven = {check["what"] for check in proof["checks"] if check["verdict"] == "not proven"}
    assert len(proven) > 20
    assert {"stop and resume equal a whole run", "FCN R50-D8: 20 iterations with AMP", "moco + mixmask, fp16"} <= proven
    graph = "moco + mixmask, fp16: steps as one CUDA graph"
    assert graph in proven
    assert "moco: two NCCL ranks equal one process with two groups" in proven


def test_a_machine_without_a_gpu_is_told_so_in_one_line(run_tool) -> None:
    done = run_tool("tools/prove_gpu.py", check=2)
    assert done.stderr.startswith(
        "error: no GPU is available here, so nothing can be proven; run this on a machine with one"
    )
