"""Checkpoints come from a server or the hub's cache: fetched once, resumed, checked, and named where there is no network."""

import hashlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

import masktransfer
from core import remote
from core.errors import InputError
from core.files import FileError
from core.provenance import ROOT
from transfer.convert.convert import convert
from transfer.convert.load_check import inside
from transfer.convert.read import read
from transfer.suite import settings, trial

sys.path.insert(0, str(ROOT / "tools"))
import run_benchmark
import train_net

CONFIGS = ROOT / "configs" / "transfer"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content`` under any name but ``none``, in ranges; notes what was asked; breaks off after ``limit`` bytes."""

    content, asked, limit = b"", list[str](), 10**9

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer with the headers."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with the content from the first byte that is asked for."""
        first = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0])
        type(self).asked.append(f"{self.command} {first}")
        self.send_response(404 if "none" in self.path else 206 if first else 200)
        self.send_header("ETag", hashlib.md5(self.content).hexdigest())
        self.send_header("Content-Length", str(len(self.content) - first))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.content[first:][: self.limit])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    torch.save(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), tmp_path / "content.pth")
    Server.content, Server.asked, Server.limit = (tmp_path / "content.pth").read_bytes(), [], 10**9
    monkeypatch.setenv("MASKTRANSFER_CACHE", str(tmp_path / "cache"))
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def test_a_checkpoint_of_a_server_is_fetched_once_and_again_when_it_changed(server: str, tmp_path: Path) -> None:
    proof = convert(f"{server}/mobilenet.pth", tmp_path / "a.pkl", target="detectron2")
    assert proof.source_sha256 == hashlib.sha256(Server.content).hexdigest()
    file = remote.local(Path(f"{server}/mobilenet.pth"))  # pathlib takes a slash off
    assert (file.name, file.read_bytes() == Server.content) == ("mobilenet.pth", True)
    assert [line for line in Server.asked if line.startswith("GET")] == ["GET 0"]
    file.write_bytes(b"altered")  # what is kept is checked
    assert remote.local(f"{server}/mobilenet.pth").read_bytes() == Server.content
    Server.content += b"changed"
    assert remote.local(f"{server}/mobilenet.pth").read_bytes() == Server.content


def test_a_download_that_was_cut_off_goes_on(server: str) -> None:
    Server.limit = 1000
    with pytest.raises(FileError, match=r"ended after 1000 of .*fetch http.* on a machine with a network, and give"):
        remote.local(f"{server}/a.pth")
    Server.limit = 10**9
    assert remote.local(f"{server}/a.pth").read_bytes() == Server.content
    assert Server.asked[-1] == "GET 1000"


def test_a_wrong_hash_a_missing_file_and_no_network_are_one_line(server: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(Server.content).hexdigest()
    assert remote.local(f"{server}/a.pth#sha256={digest}").is_file()
    with pytest.raises(FileError, match="what was fetched has sha256 " + digest):
        remote.local(f"{server}/b.pth#sha256=ab")
    with pytest.raises(FileError, match="is not there"):
        remote.local(f"{server}/none.pth")
    kept = remote.local(f"{server}/a.pth")
    note = next((tmp_path / "cache" / "weights").glob("*.json"))
    told = json.loads(note.read_text())
    gone = note.with_name(hashlib.sha256(b"http://127.0.0.1:9/a.pth").hexdigest() + ".json")
    gone.write_text(json.dumps(told))
    assert remote.local("http://127.0.0.1:9/a.pth") == kept  # nobody answers there: what is kept is taken
    with pytest.raises(
        FileError, match=r"cannot be fetched \(.*fetch http://127.0.0.1:9/c.pth on a machine with a network"
    ):
        remote.local("http://127.0.0.1:9/c.pth")


def test_a_repository_of_the_hub_tells_its_architecture_and_is_named_when_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    home = tmp_path / "hub" / "models--timm--resnetblur18.test"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    save_file(timm.create_model("resnetblur18", pretrained=False).state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"architecture": "resnetblur18"}))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for address in ("hf://timm/resnetblur18.test", "hf://timm/resnetblur18.test/model.safetensors@main"):
        assert read(remote.local(address)).arch == "resnetblur18"
    with pytest.raises(FileError, match=r"cannot be fetched \(.*fetch `hf download timm/nothing` on a machine"):
        remote.local("hf://timm/nothing")


def measured(given: str, tmp_path: Path) -> None:
    arguments = [given, "--benchmark", "shapes_knn", "--out", str(tmp_path / "trial")]
    trial.run_trial(run_benchmark.job(run_benchmark.parser().parse_intermixed_args(arguments)))


def trained_by_detectron2(given: str, tmp_path: Path) -> None:
    from transfer.frameworks.detectron2.run import prepare

    config = str(CONFIGS / "detection/mask-rcnn_r50-fpn_8xb2-90k_coco.yaml")
    asked = train_net.parser().parse_args(["--config-file", config, "--weights", given, "--out", str(tmp_path / "run")])
    asked.opts = train_net.pairs(asked)
    prepare(asked)


def trained_by_mmsegmentation(given: str, tmp_path: Path) -> None:
    from transfer.frameworks.mmseg.run import run

    run(CONFIGS / "segmentation/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py", tmp_path / "run", Path(given))


def trained_by_a_classifier(given: str, tmp_path: Path) -> None:
    from transfer.frameworks.classification.run import run

    run(CONFIGS / "classification/knn_shapes.yaml", Path(given), tmp_path / "run")


def asked_of_a_suite(given: str, tmp_path: Path) -> None:
    suite = settings.read({"name": "s", "benchmarks": ["shapes_knn"], "checkpoints": {"a": {"path": given}}}, ())
    read(suite.checkpoints["a"].path or "")


USERS: dict[str, Any] = {
    "convert": lambda given, tmp_path: convert(given, tmp_path / "a.pkl", target="detectron2"),
    "run_benchmark": measured, "train_net": trained_by_detectron2, "train_seg": trained_by_mmsegmentation,
    "train_classifier": trained_by_a_classifier, "suite": asked_of_a_suite,
    "check_loading": lambda given, tmp_path: inside(torch.nn.Module(), given),
    "load_backbone": lambda given, tmp_path: masktransfer.load_backbone(given),
    "evaluate": lambda given, tmp_path: masktransfer.evaluate(given, "shapes_knn", out=tmp_path / "trial"),
}  # fmt: skip


@pytest.mark.parametrize("user", USERS)
def test_an_address_is_fetched_and_read_wherever_a_checkpoint_is_taken(server: str, tmp_path: Path, user: str) -> None:
    Server.content = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(FileError, match=r"weights/\w{64}/w\.pth is a Git LFS pointer"):
        USERS[user](f"{server}/w.pth", tmp_path)


class Bucket(MemoryFileSystem):
    """A store in memory that answers to the addresses of S3."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("s3://")))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("MASKTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(_registry, "s3", Bucket)
    yield Bucket()
    Bucket.store.clear()
    Bucket.clear_instance_cache()


def test_a_checkpoint_of_a_bucket_is_fetched_again_when_it_changed_and_goes_on_where_it_was_cut_off(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), tmp_path / "content.pth")
    content, address = (tmp_path / "content.pth").read_bytes(), "s3://mine/runs/r50.pth"
    bucket.pipe("/mine/runs/r50.pth", content)
    proof = convert(address, tmp_path / "a.pkl", target="detectron2")
    assert (proof.arch, proof.source_sha256) == ("mobilenetv2_050", hashlib.sha256(content).hexdigest())
    opened: list[str] = []
    monkeypatch.setattr(
        Bucket, "open", lambda self, *args, **more: opened.append(args[0]) or MemoryFileSystem.open(self, *args, **more)
    )
    assert remote.local(Path(address)).read_bytes() == content
    assert opened == []  # what is kept is still what is there
    bucket.pipe("/mine/runs/r50.pth", content + b"changed")
    assert remote.local(address).read_bytes() == content + b"changed"
    key = hashlib.sha256(b"s3://mine/runs/other.pth").hexdigest()
    bucket.pipe("/mine/runs/other.pth", content)
    part = tmp_path / "cache" / "weights" / f"{key}.part"
    part.write_bytes(content[:1000])
    part.with_suffix(".state").write_text(bucket.ukey("/mine/runs/other.pth"))
    assert remote.local("s3://mine/runs/other.pth").read_bytes() == content
    with pytest.raises(FileError, match=r"s3://mine/none\.pth is not there"):
        remote.local("s3://mine/none.pth")


def test_without_the_client_of_a_store_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"s3://b/w\.pth: .*s3fs.*install it, or fetch the file and give its path"):
        remote.local("s3://b/w.pth")


def test_what_is_no_address_is_a_path() -> None:
    assert all(map(remote.is_remote, ("hf://a/b", "s3://b/k", "https://c/d.pth")))
    assert not any(map(remote.is_remote, ("a/b.pth", "C:/x.pth", "/x:y/z.pth")))
