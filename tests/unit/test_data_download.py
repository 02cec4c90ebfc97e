"""Data sets are fetched, resumed, unpacked and checked."""

import hashlib
import io
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from made_data import PHOTO, below, by_hand, pack
from PIL import Image
from scipy.io import loadmat, savemat

from core import bounds
from core.data import cifar
from core.errors import InputError
from transfer.datasets import class_folders, download, published, voc
from transfer.datasets.checking import require
from transfer.datasets.download import Archive, Unreachable

BODY = np.random.default_rng(0).integers(0, 256, 3 * 2**20 + 17, dtype=np.uint8).tobytes()
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one body with ranges; ``cuts`` are how many bytes each of the first answers brings before it breaks off."""

    body, etag, ranges, status = BODY, '"one"', True, None
    cuts: list[int]
    asked: list[tuple[str | None, str | None]]


class Handler(BaseHTTPRequestHandler):
    """Answers GET with the whole body or the range asked for."""

    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((wanted, self.headers.get("If-Range")))
        if server.status:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        data = server.body[start:]
        self.send_header("Content-Length", str(len(data)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(data[: server.cuts.pop(0)] if server.cuts else data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    running = Server(("127.0.0.1", 0), Handler)
    running.cuts, running.asked = [], []
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def archive(server: Server, md5: str = MD5, size: int | None = None, sha256: str = "") -> Archive:
    return Archive("set.tar", f"http://127.0.0.1:{server.server_port}/set.tar", size, sha256, md5)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_verified_and_left_without_traces(server, tmp_path):
    (path,) = download.obtain([archive(server, size=len(BODY))], tmp_path / "downloads")
    assert path.read_bytes() == BODY
    assert names(tmp_path / "downloads") == ["set.tar"]
    assert download.obtain([archive(server)], tmp_path / "downloads") == [path]
    assert len(server.asked) == 1  # what is there is not asked for again


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = [2**20, 5, 2**20]
    download.fetch(archive(server), tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == BODY
    starts = [0, 2**20, 2**20 + 5, 2**21 + 5]
    assert [wanted for wanted, _ in server.asked] == [f"bytes={start}-" if start else None for start in starts]
    assert [etag for _, etag in server.asked] == [None, '"one"', '"one"', '"one"']


def test_a_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.cuts = [2**20, 0, 0, 0]
    with pytest.raises(Unreachable, match=f"cannot reach 127.0.0.1:.* {2**20} bytes of set.tar are kept"):
        download.fetch(archive(server), tmp_path / "set.tar")
    assert names(tmp_path) == ["set.tar.part", "set.tar.part.json"]
    server.cuts, server.asked = [], []
    download.fetch(archive(server), tmp_path / "set.tar")
    assert server.asked[0][0] == f"bytes={2**20}-"
    assert names(tmp_path) == ["set.tar"]


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    server.cuts = [2**20, 0, 0, 0]
    with pytest.raises(Unreachable):
        download.fetch(archive(server), tmp_path / "set.tar")
    server.cuts, server.etag, server.body = [], '"two"', BODY[::-1]
    download.fetch(archive(server, hashlib.md5(BODY[::-1]).hexdigest()), tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("kind", ["no ranges", "no etag"])
def test_a_server_that_cannot_resume_is_asked_for_the_whole_again(server, tmp_path, kind):
    server.cuts = [2**20]
    if kind == "no ranges":
        server.ranges = False
    else:
        server.etag = ""
    download.fetch(archive(server), tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == BODY


def test_a_part_that_is_whole_already_is_only_verified(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(BODY)
    (tmp_path / "set.tar.part.json").write_text('{"validator": "\\"one\\""}')
    download.fetch(archive(server), tmp_path / "set.tar")
    assert server.asked == [(f"bytes={len(BODY)}-", '"one"')]
    assert names(tmp_path) == ["set.tar"]
    (tmp_path / "set.tar").unlink()
    (tmp_path / "set.tar.part").write_bytes(BODY + b"more")
    (tmp_path / "set.tar.part.json").write_text('{"validator": "\\"one\\""}')
    download.fetch(archive(server), tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == BODY


def test_a_server_that_sends_more_than_was_published_is_not_read_to_the_end(server, tmp_path):
    with pytest.raises(ValueError, match=r"sends more than the 1,000 bytes that were published"):
        download.fetch(archive(server, size=1000), tmp_path / "set.tar")
    assert (tmp_path / "set.tar.part").stat().st_size == 0


def test_a_wrong_checksum_is_refused_and_the_file_set_aside(server, tmp_path):
    with pytest.raises(
        ValueError, match=rf"set\.tar has the md5 {MD5}, not 0000; it was set aside as set\.tar\.refused,"
    ):
        download.fetch(archive(server, "0000"), tmp_path / "set.tar")
    assert names(tmp_path) == ["set.tar.refused"]
    (tmp_path / "set.tar").write_bytes(BODY[:-1])  # as one put there by hand
    with pytest.raises(ValueError, match=f"set.tar has {len(BODY) - 1} bytes, not {len(BODY)}"):
        download.obtain([archive(server, size=len(BODY))], tmp_path)
    assert names(tmp_path) == ["set.tar.refused"]


def test_a_sha256_is_what_counts_where_there_is_one_and_an_md5_alone_is_said(server, tmp_path, capsys):
    whole = hashlib.sha256(BODY).hexdigest()
    download.fetch(archive(server, "0000", sha256=whole), tmp_path / "set.tar")
    assert "MD5" not in capsys.readouterr().err
    download.fetch(archive(server), tmp_path / "other.tar")
    assert "set.tar: only its MD5 is published, which tells damage and no forger" in capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"set\.tar has the sha256 {whole}, not 1111"):
        download.fetch(archive(server, sha256="1111"), tmp_path / "third" / "set.tar")


def test_everything_in_the_catalogue_is_encrypted_and_has_a_size_and_a_checksum():
    named = [one for sets in published.SETS.values() for each in sets for one in each.archives if one.url] + [
        published.SBD
    ]
    assert [one.name for one in named if not (one.url.startswith("https://") and one.size)] == []
    assert [one.name for one in named if not re.fullmatch(r"[0-9a-f]{64}", one.sha256)] == ["benchmark.tgz"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
@pytest.mark.parametrize("kind", ["member", "header"])
def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, suffix, kind):
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a", bytes(24 * 2**20))
    else:
        with tarfile.open(path, f"w:{suffix[5:]}", format=tarfile.PAX_FORMAT) as tar:
            member = tarfile.TarInfo("a" if kind == "member" else "a" * 24 * 2**20)
            member.size = 24 * 2**20 if kind == "member" else 0
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(InputError, match=r"bomb.* unpacks to more than 20 times its size"):
        download.unpack(path, tmp_path / "out")


def test_without_a_network_one_message_names_every_file_and_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSES", ())
    wanted = [Archive(f"{name}.zip", f"http://127.0.0.1:9/{name}.zip") for name in "ab"]
    told = (
        r"cannot reach 127.0.0.1:9 \(.*\); download on another machine: a.zip \(http://.*/a.zip\), b.zip \(http.*\); "
        "put into .*downloads and start the same command again"
    )
    with pytest.raises(ValueError, match=told):
        download.obtain(wanted, tmp_path / "downloads")
    assert names(tmp_path / "downloads") == []


def test_a_file_that_the_server_does_not_have_is_an_error_at_once(server, tmp_path):
    server.status = 404
    with pytest.raises(Unreachable, match=r"/set\.tar answers 404 Not Found"):
        download.fetch(archive(server), tmp_path / "set.tar")
    assert len(server.asked) == 1


def test_files_behind_a_login_are_asked_for_by_name(tmp_path):
    with pytest.raises(
        ValueError, match=r"register there; put a\.zip, b\.zip into .*downloads and start the same command"
    ):
        download.obtain([Archive("a.zip", None), Archive("b.zip", None)], tmp_path / "downloads", "register there")


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(server, tmp_path):
    with pytest.raises(ValueError, match=r"GiB free, \d+\.\d are needed"):
        download.obtain([archive(server, size=10**18)], tmp_path / "downloads")
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*file/set\.tar\.part"):
        download.fetch(archive(server), tmp_path / "file" / "set.tar")


# --- archives


def make_archive(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, data in members.items():
                info = zipfile.ZipInfo(name)
                info.external_attr = (0xA1FF << 16) if name == link else 0
                file.writestr(info, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if name == link:
                member.type, member.linkname = tarfile.SYMTYPE, data.decode()
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
def test_the_selected_members_are_unpacked(tmp_path, suffix):
    made = make_archive(tmp_path / f"a{suffix}", {"x/one.txt": b"1", "x/sub/two.txt": b"22", "y/three.txt": b"333"})
    assert download.unpack(made, tmp_path / "out", download.below("x/", "new/")) == 2
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.txt")}
    assert found == {"new/one.txt": b"1", "new/sub/two.txt": b"22"}
    with pytest.raises(ValueError, match="holds none of the files expected"):
        download.unpack(made, tmp_path / "out", download.below("z/"))


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil"])
def test_members_that_would_leave_the_folder_are_refused(tmp_path, suffix, name):
    made = make_archive(tmp_path / f"a{suffix}", {name: b"1"})
    with pytest.raises(ValueError, match="which would leave the folder"):
        download.unpack(made, tmp_path / "sub" / "out")
    assert [path for path in tmp_path.rglob("*evil*") if path.is_file()] == []


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_links_are_refused(tmp_path, suffix):
    made = make_archive(tmp_path / f"a{suffix}", {"passwords": b"/etc/passwd"}, link="passwords")
    with pytest.raises(ValueError, match="holds 'passwords', a link"):
        download.unpack(made, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])
def test_a_truncated_archive_is_named(tmp_path, suffix):
    made = make_archive(tmp_path / f"a{suffix}", {"one.bin": BODY[:9000], "two.bin": BODY[9000:20000]})
    made.write_bytes(made.read_bytes()[:-9500])
    with pytest.raises(ValueError, match=rf"a{suffix} is truncated or damaged"):
        download.unpack(made, tmp_path / "out")


# --- CIFAR


@pytest.fixture
def few_records(monkeypatch) -> None:
    few = [
        form._replace(records={split: form.classes * len(names) for split, names in form.files.items()})
        for form in cifar.FORMS
    ]
    monkeypatch.setattr(cifar, "FORMS", few)


def cifar_members(form: str) -> dict[str, bytes]:
    shape = next(one for one in cifar.FORMS if one.folder == form)
    rows = b"".join(bytes(shape.label_bytes - 1) + bytes([label]) + bytes(3072) for label in range(shape.classes))
    names = [name for split in shape.files.values() for name in split]
    return {f"{form}/{name}": rows for name in (*names, "readme.html")}


@pytest.mark.usefixtures("few_records")
def test_both_cifars_are_unpacked_from_archives_put_there_by_hand(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.CIFAR10, images={"train": 50, "test": 10})
    by_hand(monkeypatch, published.CIFAR100, images={"train": 100, "test": 100})
    pack(tmp_path / "downloads" / "cifar-10-binary.tar.gz", cifar_members("cifar-10-batches-bin"))
    pack(tmp_path / "downloads" / "cifar-100-binary.tar.gz", cifar_members("cifar-100-binary"))
    ten = {"train": {"images": 50, "classes": 10}, "test": {"images": 10, "classes": 10}}
    assert published.prepare("cifar10", tmp_path) == {str(tmp_path / "cifar10"): ten}
    assert published.prepare("cifar100", tmp_path)[str(tmp_path / "cifar100")]["train"]["classes"] == 100
    shutil.rmtree(tmp_path / "downloads")  # not needed again
    assert published.prepare("cifar10", tmp_path) == published.check("cifar10", tmp_path)


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: None,
            r"data_batch_2\.bin is missing beside the other batches; remove the folder and make it again",
        ),
        (lambda data: data[:-1], r"data_batch_2\.bin has 30729 bytes, no multiple of 3073; it is truncated"),
        (lambda data: b"\x0b" + data[1:], r"data_batch_2\.bin holds a label outside 0 to 9"),
        (lambda data: data[3073:], r"cifar-10-batches-bin has 49 images in 'train', not 50"),
        (lambda data: b"\x01" + data[1:], r"classes of 'train' have 4 to 6 images"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, change, message):
    for name, data in cifar_members("cifar-10-batches-bin").items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = change(data) if "batch_2" in name else data
        if data is not None:
            path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        class_folders.check_cifar(tmp_path / "set")


def test_a_folder_made_in_another_way_is_never_replaced(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.CIFAR10)
    for split in ("train", "test"):
        for name in class_folders.CIFAR10:
            path = tmp_path / "cifar10" / split / name / "1.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(PHOTO)
    with pytest.raises(ValueError, match="cifar10 has 10 images in 'train', 50000 are published"):
        published.prepare("cifar10", tmp_path)
    assert (tmp_path / "cifar10" / "train" / "dog" / "1.jpg").read_bytes() == PHOTO
    (tmp_path / "cifar10" / "manifest.json").write_text(
        '{"made_from": {"sha256": "of a tar"}, "files": {}, "sha256": ""}'
    )
    with pytest.raises(ValueError, match="50000 are published"):
        published.prepare("cifar10", tmp_path)


# --- VOC


def voc_members(names: str, lists: dict[str, str]) -> dict[str, bytes]:
    """Make an archive of images named by one letter, with a box and a mask each; ``lists`` are list -> names."""
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>6</ymax></bndbox>"
    xml = f"<annotation><size><width>8</width><height>6</height></size><object><name>dog</name>{box}</object></annotation>"
    members = {}
    mask = io.BytesIO()
    image = Image.fromarray(np.full((6, 8), 12, dtype=np.uint8))
    image.putpalette(voc.palette())
    image.save(mask, "PNG")
    for name in names:
        members[f"JPEGImages/{name}.jpg"] = PHOTO
        members[f"Annotations/{name}.xml"] = xml.encode()
        members[f"SegmentationClass/{name}.png"] = mask.getvalue()
    for name, listed in lists.items():
        members[f"ImageSets/{name}.txt"] = "".join(f"{letter}\n" for letter in listed).encode()
    return members


LISTS = {"Main/trainval": "abc", "Segmentation/train": "a", "Segmentation/val": "b"}


def prepare_voc(monkeypatch, root: Path) -> dict:
    by_hand(monkeypatch, published.VOC2007, images={"Main/trainval": 3, "Main/test": 2})
    by_hand(monkeypatch, published.VOC2012, images={"Main/trainval": 3, "Segmentation/train": 1})
    place = root / "downloads"
    first = below("VOCdevkit/VOC2007/", voc_members("abc", LISTS))
    pack(place / "VOCtrainval_06-Nov-2007.tar", first)
    pack(place / "VOCtest_06-Nov-2007.tar", below("VOCdevkit/VOC2007/", voc_members("de", {"Main/test": "de"})))
    pack(place / "VOCtrainval_11-May-2012.tar", below("VOCdevkit/VOC2012/", voc_members("abc", LISTS)))
    return published.prepare("voc", root)


def test_voc_is_laid_out_as_detectron2_reads_it(monkeypatch, tmp_path):
    counts = prepare_voc(monkeypatch, tmp_path)
    assert counts[str(tmp_path / "VOC2007")]["Main/test"] == {
        "images": 2, "objects": 2, "boxes outside": 0, "wrong sizes": 0,
    }  # fmt: skip
    assert counts[str(tmp_path / "VOC2012")]["Segmentation/val"] == {"images": 1, "classes seen": 1}
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"):
        require(name)
    with pytest.raises(ValueError, match=r"no list .*VOC2012/ImageSets/Main/test\.txt; fetch VOC with"):
        require("voc_2012_test")
    (tmp_path / "VOC2007" / "Annotations" / "d.xml").unlink()
    with pytest.raises(ValueError, match=r"d\.xml is missing but .*Main/test\.txt lists it \(1 of 2"):
        require("voc_2007_test")


def test_a_set_with_fewer_images_than_published_is_refused_and_not_left(monkeypatch, tmp_path):
    by_hand(monkeypatch, published.VOC2007, images={"Main/trainval": 3})
    by_hand(monkeypatch, published.VOC2012)
    for archive in published.VOC2007.archives:
        pack(
            tmp_path / "downloads" / archive.name,
            below("VOCdevkit/VOC2007/", voc_members("ab", {"Main/trainval": "ab"})),
        )
    with pytest.raises(ValueError, match="has 2 images in 'Main/trainval', 3 are published"):
        published.prepare("voc", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".VOC2007.lock", "downloads"]


def sbd(tmp_path: Path, train: str, val: str, values: int = 3) -> Path:
    members = {"train.txt": "\n".join(train).encode(), "val.txt": "\n".join(val).encode(), "img/a.jpg": PHOTO}
    for name in train + val:
        file = io.BytesIO()
        savemat(file, {"GTcls": {"Segmentation": np.full((6, 8), values, dtype=np.uint8), "Boundaries": 0}})
        members[f"cls/{name}.mat"] = file.getvalue()
    return pack(tmp_path / "downloads" / "benchmark.tgz", below("benchmark_RELEASE/dataset/", members))


def test_sbd_gives_the_lists_and_masks_outside_vocs_train_and_val(monkeypatch, tmp_path):
    prepare_voc(monkeypatch, tmp_path)
    folder = tmp_path / "VOC2012"
    assert voc.augment(folder, sbd(tmp_path, "bc", "a")) == 1
    lists = folder / "ImageSets" / "Segmentation"
    assert (lists / "aug.txt").read_text().split() == ["c"]
    assert (lists / "trainaug.txt").read_text().split() == ["a", "c"]
    with Image.open(folder / "SegmentationClassAug" / "c.png") as image:
        assert image.mode == "P"
        assert np.unique(np.asarray(image)).tolist() == [3]
    with Image.open(folder / "SegmentationClassAug" / "a.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [12]  # VOC's own mask
    counts = voc.check(folder)
    assert counts["Segmentation/aug"] == {"images": 1, "classes seen": 1}
    assert counts["Segmentation/trainaug"]["images"] == 2
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    require("VOC2012", "Segmentation/train", "Segmentation/aug")
    (folder / "SegmentationClassAug" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"SegmentationClassAug/c\.png is missing"):
        require(folder, "Segmentation/aug")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_of_matlab_are_read_as_scipy_reads_them(kind, packed, tmp_path):
    numbers = np.arange(24).reshape(2, 3, 4).astype(kind)
    kept = {"other": "text", "one": numbers, "all": {"x": 1.5, "inside": numbers[0], "last": {"deep": numbers[1, :1]}}}
    savemat(tmp_path / "a.mat", kept, do_compression=packed)
    for names in (("one",), ("all", "inside"), ("all", "last", "deep")):
        wanted = loadmat(tmp_path / "a.mat")[names[0]]
        for name in names[1:]:
            wanted = wanted[name][0, 0]
        found = bounds.mat(tmp_path / "a.mat", *names)
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
    for names in (("none",), ("other",), ("one", "x"), ("all", "y"), ("all",)):
        with pytest.raises(InputError, match=r"a\.mat is damaged or no file of MATLAB \("):
            bounds.mat(tmp_path / "a.mat", *names)


def test_damaged_sbd_masks_leave_voc_as_it_was(monkeypatch, tmp_path):
    prepare_voc(monkeypatch, tmp_path)
    before = sorted(path.name for path in (tmp_path / "VOC2012").iterdir())
    with pytest.raises(ValueError, match=r"c\.mat of SBD holds no map of the 20 classes"):
        voc.augment(tmp_path / "VOC2012", sbd(tmp_path, "bc", "a", values=21))
    assert sorted(path.name for path in (tmp_path / "VOC2012").iterdir()) == before
