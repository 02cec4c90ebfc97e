"""Tar shards, here and at URLs: the same images in the same order, and what happens when they fail."""

import gc
import io
import multiprocessing
import shutil
import tarfile
import time

import fsspec
import pytest
import torch
from made_data import make, picture, pixels, write

from core.data import tar_urls
from core.errors import InputError


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


PICTURES = [picture(seed, side=40) for seed in range(6)]
FOLDERS = [(f"set/{'ab'[index % 2]}/{index}.png", data) for index, data in enumerate(PICTURES)]
PAIRS = [
    member
    for index, data in enumerate(PICTURES)
    for member in ((f"{index:04d}.cls", str(5 - index).encode()), (f"{index:04d}.png", data))
]


def test_labels_come_from_cls_members_or_else_from_folders(tmp_path):
    write(tmp_path / "folders.tar", tar_of(FOLDERS))
    write(tmp_path / "pairs.tar", tar_of(PAIRS))
    write(tmp_path / "names.tar", tar_of([("1.cls", b"owl"), ("1.png", PICTURES[0]), ("2.png", PICTURES[1])]))
    labels = {
        name: make(name="tar_shards", root=str(tmp_path / f"{name}.tar")).labels
        for name in ("folders", "pairs", "names")
    }
    assert labels == {"folders": [0, 1, 0, 1, 0, 1], "pairs": [5, 4, 3, 2, 1, 0], "names": [0, -1]}


@pytest.mark.parametrize("scheme", ["memory", "file"])
@pytest.mark.parametrize("keep", [False, True])
def test_images_at_urls_are_those_of_the_local_tar_in_the_same_order(tmp_path, scheme, keep):
    place = tmp_path / "shards"
    for number in (8, 9, 10):
        write(place / f"part-{number:02d}.tar", tar_of(FOLDERS[2 * number - 16 : 2 * number - 14]))
    urls = f"file://{place}/part-{{08..10}}.tar"
    if scheme == "memory":
        system = fsspec.filesystem("memory")
        for path in place.iterdir():
            system.pipe(f"/{tmp_path.name}/{path.name}", path.read_bytes())
        urls = f"memory://{tmp_path.name}/part-{{08..10}}.tar"
    more = {"keep": str(tmp_path / "kept")} if keep else {}
    source = make(name="tar_urls", urls=urls, index=str(tmp_path / "index"), **more)
    local = make(name="tar_shards", root=str(place))
    assert len(source) == len(local) == 6
    assert source.labels == local.labels
    for index in (3, 0, 5, 1, 4, 2):
        assert torch.equal(source.image(index), local.image(index))
    if keep:
        shutil.rmtree(place)
        assert torch.equal(source.image(0), local.image(0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_webdataset_writes_what_is_read_here_and_reads_it_in_the_same_order(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for index, data in enumerate(PICTURES):
            writer.write({"__key__": f"{index:05d}", "png": data, "cls": index % 3})
    source = make(name="tar_urls", urls=f"file://{tmp_path}/w.tar", index=str(tmp_path / "index"))
    theirs = list(webdataset.WebDataset(f"file:{tmp_path}/w.tar", shardshuffle=False))
    assert source.labels == [int(sample["cls"]) for sample in theirs] == [0, 1, 2, 0, 1, 2]
    for index, sample in enumerate(theirs):
        assert torch.equal(source.image(index), pixels(sample["png"]))
    gc.collect()


def test_a_shard_is_indexed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    shard = write(tmp_path / "s.tar", tar_of(PAIRS))
    settings = {"name": "tar_urls", "urls": f"file://{shard}", "index": str(tmp_path / "index")}
    first = make(**settings)
    with monkeypatch.context() as patched:
        patched.setattr(tar_urls._tar_index, "find", None)  # would fail if it were called
        assert make(**settings).members == first.members
    (kept,) = (tmp_path / "index").iterdir()
    kept.write_text("{damaged")
    assert make(**settings).members == first.members
    time.sleep(0.01)
    write(shard, tar_of(PAIRS[:4]))
    assert len(make(**settings)) == 2
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_forked_workers_read_the_same(tmp_path):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    expected = [int(source.image(index).sum()) for index in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_total, [(source, index) for index in range(6)]) == expected


def _total(what: tuple) -> int:
    source, index = what
    return int(source.image(index).sum())


@pytest.mark.parametrize("name", ["tar_shards", "tar_urls"])
@pytest.mark.parametrize("cut", [1100, 700, None])
def test_a_truncated_tar_is_refused_wherever_it_ends(tmp_path, name, cut):
    whole = tar_of(FOLDERS)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        end = [member.offset for member in tar][3]  # exactly between two members
    shard = write(tmp_path / "s.tar", whole[: end if cut is None else cut])
    settings = (
        {"root": str(shard)} if name == "tar_shards" else {"urls": f"file://{shard}", "index": str(tmp_path / "i")}
    )
    with pytest.raises(InputError, match=r"s\.tar is truncated"):
        make(name=name, **settings)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ("memory://nowhere/a.tar", "no tar shard at memory://nowhere/a.tar; set data.urls"),
        ("nothing://a.tar", r"data\.urls: nothing://a\.tar cannot be read \(Protocol not known"),
        ("memory://a-{3..1}.tar", r"the range \{3\.\.1\} of .* is empty"),
    ],
)
def test_urls_that_lead_nowhere_are_refused(tmp_path, urls, message):
    with pytest.raises(InputError, match=message):
        make(name="tar_urls", urls=urls, index=str(tmp_path))


def test_a_lost_connection_is_tried_again_and_then_stops_the_run_instead_of_skipping(tmp_path, monkeypatch):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    good, calls = source._fetch, []

    def shaky(*place: int) -> bytes:
        calls.append(place)
        if len(calls) < 3:
            raise OSError("connection lost")
        return good(*place)

    monkeypatch.setattr(tar_urls, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(source, "_fetch", shaky)
    assert torch.equal(source.image(0), pixels(PICTURES[0]))
    monkeypatch.setattr(tar_urls, "PAUSES", (0.0,))
    calls.clear()
    with pytest.raises(InputError, match=r"cannot read file://.*s\.tar \(connection lost\)") as caught:
        source.image(0)
    assert type(caught.value) is InputError  # a DamagedImage would be skipped


def test_a_shard_that_shrank_during_the_run_is_told_apart_from_a_damaged_image(tmp_path):
    shard = write(tmp_path / "s.tar", tar_of(FOLDERS))
    source = make(name="tar_urls", urls=f"file://{shard}", index=str(tmp_path / "index"))
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"s\.tar is shorter than its index says; remove the folder .*index") as caught:
        source.image(5)
    assert type(caught.value) is InputError


def test_ranges_of_urls_are_written_out_with_their_zeros():
    assert tar_urls.expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert tar_urls.expand("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
    assert tar_urls.expand("plain.tar") == ["plain.tar"]
