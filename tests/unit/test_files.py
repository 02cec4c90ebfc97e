"""Files are written whole or not at all, and read without running anything in them."""

import argparse
import collections
import os
import pickle
import resource
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from omegaconf import OmegaConf
from safetensors.torch import save_file

from core.checkpoint import save
from core.files import FileError, replacing, require_room, sha256, sweep, temporary_folder, write_atomic, write_json
from core.journal import Journal, read
from core.unpickling import StandIn, stand_in
from core.weights_file import read_weights_file


class Payload:
    """Would create a file if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", None])
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match="No space left on device; free some space"), replacing(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["text" * 9000, {"weight": torch.zeros(9000)}], ids=["text", "torch"])
def test_a_limit_that_is_met_while_writing_is_one_line_of_exit_code_1_and_the_old_file_stays(tmp_path, content):
    (tmp_path / "x").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(FileError, match=r"x: File too large; free some space") as told:
            write_atomic(tmp_path / "x", content) if isinstance(content, str) else save(tmp_path / "x", content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (told.value.code, FileError("").code) == (1, 2)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "old")]


def test_what_a_killed_writer_left_goes_with_the_next_write_and_what_is_being_written_stays(tmp_path):
    killed = """
import os, signal, sys, pathlib
from core.files import replacing, temporary_folder
place = pathlib.Path(sys.argv[1])
with temporary_folder(place, "convert") as folder, replacing(place / "last.pth") as file:
    (folder / "half").write_bytes(b"half")
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)])
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    (tmp_path / ".mine.tmp").touch()  # not of our making
    with temporary_folder(tmp_path, "other") as folder, replacing(tmp_path / "a"):
        now = {path.name for path in tmp_path.iterdir()}
        sweep(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == now
        assert folder.name in now
        assert not now & left
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".mine.tmp"}


def test_a_disk_without_room_is_told_before_the_work(tmp_path):
    require_room(tmp_path / "new" / "run", 1, "a checkpoint")
    with pytest.raises(FileError, match=r"new has .* GiB free, 1048576\.0 are needed for 3 checkpoints") as told:
        require_room(tmp_path / "new", 2**50, "3 checkpoints")
    assert told.value.code == 1


def test_a_damaged_line_of_a_journal_is_left_out_and_said(tmp_path, capsys):
    with Journal(tmp_path, 9) as journal:
        for step in (1, 2, 3, 4):
            journal.log(step, loss=step / 2)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"1.0", b"9.0")  # readable, and not what was written
    path.write_bytes(b"".join(lines)[:-20] + b"\xff")
    assert [line["step"] for line in read(path)] == [1, 3]
    path.write_bytes(path.read_bytes() + b'\n{"step": 5, "loss": 2}\n')  # of another tool
    capsys.readouterr()
    with Journal(tmp_path, 9, start=5) as journal:
        journal.log(6, loss=1.0)
    assert "journal.jsonl: 2 of 5 lines are damaged and left out" in capsys.readouterr().err
    assert read(path) == [{"step": step, "loss": loss} for step, loss in ((1, 0.5), (3, 1.5), (5, 2), (6, 1.0))]


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    write_atomic(tmp_path / "x", "abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_arrays_in_a_pickle_are_read(tmp_path):
    for protocol in (2, 4, 5):
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps({"model": {"a": np.arange(6.0).reshape(2, 3)}, "ok": True}, protocol=protocol))
        assert read_weights_file(path)["model"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, suffix):
    path, trace = tmp_path / f"evil{suffix}", tmp_path / "ran"
    content = {"state_dict": Payload(trace)}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(FileError, match=r"evil.*holds a pickled object"):
        read_weights_file(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    content = {"model": {"a": np.ones(1000)}} if suffix == ".pkl" else {"a": torch.ones(1000)}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(FileError, match=r"cut.*is truncated or not"):
        read_weights_file(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileError, match="is a folder; give a checkpoint in it"):
        read_weights_file(tmp_path)
    with pytest.raises(FileError, match=r"no checkpoint at .*none\.pth"):
        read_weights_file(tmp_path / "none.pth")


def test_a_bare_tensor_is_not_a_checkpoint(tmp_path):
    torch.save(torch.ones(3), tmp_path / "x.pth")
    with pytest.raises(FileError, match="holds a Tensor, not a mapping"):
        read_weights_file(tmp_path / "x.pth")


def test_a_text_file_is_no_checkpoint_and_not_called_a_pickle(tmp_path):
    (tmp_path / "README.md").write_text("# MaskTransfer\n")
    with pytest.raises(FileError, match=r"README\.md is truncated or not a checkpoint"):
        read_weights_file(tmp_path / "README.md")


def test_safetensors_are_read_with_their_recipe(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "plain.safetensors")
    assert read_weights_file(tmp_path / "plain.safetensors")["a"].tolist() == [1, 1]
    save_file({"a": torch.ones(2)}, tmp_path / "ours.safetensors", {"format": "pt", "recipe": '{"depth": 18}'})
    file = read_weights_file(tmp_path / "ours.safetensors")
    assert (file["recipe"], list(file["state_dict"])) == ({"depth": 18}, ["a"])
    for name, data in (("cut", (tmp_path / "ours.safetensors").read_bytes()[:-4]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        with pytest.raises(FileError, match=rf"{name}\.safetensors is truncated or not a safetensors file"):
            read_weights_file(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_beside_the_tensors_become_stand_ins_and_the_tensors_are_kept(tmp_path, zipped):
    lists = collections.defaultdict(list, a=[1])
    content = {
        "args": argparse.Namespace(arch="resnet50", output=Path("/runs/1")),
        "hyper_parameters": OmegaConf.create({"method": "byol", "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}}),
        "seen": {"lists": lists, "set": {1, 2}, "best": np.float64(71.5)},
        "history": HistoryBuffer([1.0, 2.0], [1, 1], 10),
        "array": np.arange(3.0),
        "state_dict": {"a": torch.arange(3)},
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights_file(tmp_path / "x.pth")
    assert found["state_dict"]["a"].tolist() == [0, 1, 2]
    assert found["array"].tolist() == [0, 1, 2]
    assert found["seen"] == {"lists": {"a": [1]}, "set": {1, 2}, "best": 71.5}
    assert [type(found[key]) for key in ("args", "hyper_parameters", "history")] == [StandIn] * 3
    assert vars(found["args"]) == {}
    assert stand_in("pathlib._local.PosixPath") is StandIn  # as Python 3.13 writes a path


def test_no_code_of_a_stood_in_module_runs(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda self, **values: made.append(values))
    torch.save({"args": argparse.Namespace(a=1), "a": torch.ones(1)}, tmp_path / "x.pth")
    made.clear()
    read_weights_file(tmp_path / "x.pth")
    assert made == []


@pytest.mark.parametrize("harmful", [eval, os.system, getattr(os, "popen")], ids=["eval", "system", "popen"])  # noqa: B009
def test_a_function_is_no_setting(tmp_path, harmful):
    torch.save({"args": argparse.Namespace(a=1), "callback": harmful}, tmp_path / "x.pth")
    with pytest.raises(FileError, match="holds a pickled object"):
        read_weights_file(tmp_path / "x.pth")


def test_a_whole_module_is_refused_and_a_program_too(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(FileError, match=r"holds a pickled object \(torch\.nn\.modules\.linear\.Linear\).*state_dict"):
        read_weights_file(tmp_path / "x.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.14 deprecates what writes such files; they are still about
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(FileError, match="is a TorchScript program, not weights"):
        read_weights_file(tmp_path / "x.pt")


def test_torch_files_may_be_called_pkl_ckpt_or_tar(tmp_path):
    for name in ("x.pkl", "x.ckpt", "x.pth.tar"):
        torch.save({"a": torch.ones(1)}, tmp_path / name)
        assert read_weights_file(tmp_path / name)["a"].item() == 1


def test_arrays_keep_their_kind_order_and_byte_order(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i4"), "half": np.ones((2, 1), np.float16), "flags": np.array([True, False]),
        "empty": np.ones((0, 3)), "number": np.float32(1.5),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
        found = read_weights_file(tmp_path / "x.pkl")
        for name, value in arrays.items():
            assert np.array_equal(found[name], value), name
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
        found["half"][0] = 2  # writable, so that torch takes it without a warning


def test_what_a_file_says_about_an_arrays_memory_is_not_believed(tmp_path):
    """Flags that call numbers references made NumPy itself follow them as pointers."""
    data = pickle.dumps({"a": np.arange(4)}, protocol=2)
    start = data.index(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00")
    (tmp_path / "x.pkl").write_bytes(data[: start + 14] + b"\x3f" + data[start + 15 :])
    assert read_weights_file(tmp_path / "x.pkl")["a"].tolist() == [0, 1, 2, 3]


def test_a_pickle_cannot_change_what_later_files_are_read_with(tmp_path):
    """BUILD with a second state sets attributes of anything named: here, another default order of arrays."""
    poison = b"cnumpy.core.numeric\n_frombuffer\n(N}U\x0c__defaults__(U\x01Ftstb."
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + poison)
    with pytest.raises(FileError, match="truncated or not a pickle of arrays"):
        read_weights_file(tmp_path / "x.pkl")


def nested(depth, leaf):
    for _ in range(depth):
        leaf = [leaf, (leaf, {"again": leaf})]
    return leaf


def test_containers_that_occur_often_are_read_once(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": nested(10, [np.arange(2)])}))
    found = read_weights_file(tmp_path / "x.pkl")["model"]
    while len(found) == 2:
        assert found[1][0] is found[0]
        assert found[1][1]["again"] is found[0]
        found = found[0]
    assert found[0].tolist() == [0, 1]


def key(depth):
    """Make a tuple whose hash takes 2^depth steps."""
    found = ()
    for _ in range(depth):
        found = (found, found)
    return found


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pickle.dumps({"model": nested(60, [1])}), "names the same objects more than 10,000,000 times"),
        (pickle.dumps([key(60)], 4), "names the same objects more than"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "keeps an object in place 2,147,483,647"),
        (b"\x80\x04" + b"N" * 600_000 + b".", "more than 500,000 operations"),
        (b"\x80\x04]\x8e\x00\x00\x00\x00\x00\x00\x00\x40.", "truncated or not a pickle"),
    ],
)
def test_a_small_file_that_describes_too_much_is_refused_at_once(tmp_path, content, problem):
    (tmp_path / "x.pkl").write_bytes(content)
    begin = time.process_time()
    with pytest.raises(FileError, match=problem):
        read_weights_file(tmp_path / "x.pkl")
    assert time.process_time() - begin < 10


def test_tensors_far_larger_than_their_file_and_damaged_or_compressed_archives_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pth")
    with pytest.raises(FileError, match=r"wide\.pth describes tensors far larger than the file"):
        read_weights_file(tmp_path / "wide.pth")
    torch.save({"a": torch.arange(1000)}, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    data[data.index(torch.arange(500, 502).numpy().tobytes())] ^= 1
    (tmp_path / "flipped.pth").write_bytes(data)
    with pytest.raises(FileError, match=r"flipped\.pth is damaged: the checksum of .*data/0 does not fit"):
        read_weights_file(tmp_path / "flipped.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as stored,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for member in stored.namelist():
            small.writestr(member, stored.read(member))
    with pytest.raises(FileError, match=r"small\.pth is a compressed archive"):
        read_weights_file(tmp_path / "small.pth")


def test_what_another_library_admits_to_torchs_list_is_not_admitted_here(tmp_path):
    """MMEngine admits the real ``getattr``, by which any code can run."""
    torch.save({"f": getattr, "ok": torch.ones(1)}, tmp_path / "x.pth")
    before = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([getattr]):
        assert read_weights_file(tmp_path / "x.pth")["f"] is StandIn
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("called", [b"", b")R"])
def test_a_file_that_reaches_into_a_stand_in_is_refused_for_what_it_names(tmp_path, called):
    data = b"\x80\x02cbuiltins\ngetattr\n" + called + b"X\x04\x00\x00\x00typeK\x01s."  # getattr["type"] = 1
    torch.save({}, tmp_path / "sound.pth")
    with zipfile.ZipFile(tmp_path / "sound.pth") as sound, zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        for name in sound.namelist():
            archive.writestr(name, data if name.endswith("data.pkl") else sound.read(name))
    with pytest.raises(FileError, match=r"x\.pth holds a pickled object \(builtins\.getattr\), which could run code"):
        read_weights_file(tmp_path / "x.pth")


def test_arrays_of_objects_become_stand_ins(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.array([{}, None], dtype=object), "b": np.ones(1)}))
    found = read_weights_file(tmp_path / "x.pkl")
    assert (type(found["a"]), found["b"].tolist()) == (StandIn, [1.0])
