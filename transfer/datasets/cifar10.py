"""CIFAR-10 as class folders, ``cifar10/{train,test}/<class>/*.jpg``, unpacked from a tar of that form; or as published."""

import re
import tarfile
from pathlib import Path

from core.errors import InputError
from core.files import sha256
from transfer.datasets import Counts, cifar_binary, folders
from transfer.datasets.images import require_image

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Only these names are written, so no member can leave the folder, and links and devices are refused.
MEMBER = re.compile(rf"(?:\./)?cifar10/((?:train|test)/(?:{'|'.join(CLASSES)})/\w[\w-]*\.(?:jpg|jpeg|png))")


def unpack(archive: Path, root: Path) -> Counts:
    """Unpack a tar into ``root/cifar10`` whole or not at all; nothing is done when it was made from the same tar."""
    if not archive.is_file():
        raise InputError(f"no file {archive}; give the path of the CIFAR-10 tar")
    folders.make_once(root / "cifar10", {"sha256": sha256(archive)}, lambda folder: _unpack(archive, folder))
    return check(root / "cifar10")


def check(folder: Path) -> Counts:
    """Check that both splits have all classes with equally many whole images; return counts per split."""
    if cifar_binary.find(folder) is not None:
        return cifar_binary.check(folder)
    counts: Counts = {}
    for split in ("train", "test"):
        sizes = {}
        for name in CLASSES:
            paths = [path for path in (folder / split / name).glob("*") if path.is_file()]
            for path in paths:
                require_image(path, split)
            sizes[name] = len(paths)
        fewest = min(sizes, key=lambda name: sizes[name])
        if sizes[fewest] != max(sizes.values()) or sizes[fewest] == 0:
            told = f"{folder / split / fewest} has {sizes[fewest]} images, other classes have {max(sizes.values())}"
            raise InputError(
                f"{told}; copy the tar again and unpack it with: python tools/prepare_data.py cifar10 TAR ROOT"
            )
        counts[split] = {"images": sum(sizes.values()), "classes": len(CLASSES)}
    return counts


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isdir():
                    continue
                known = MEMBER.fullmatch(member.name)
                content = tar.extractfile(member) if known and member.isreg() else None
                if known is None or content is None:
                    raise InputError(
                        f"{archive} holds '{member.name}', which is not an image file cifar10/{{train,test}}/<class>/NAME.jpg; "
                        "nothing was unpacked, use another tar"
                    )
                path = folder / known[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
    except tarfile.TarError as error:
        raise InputError(f"{archive} is truncated or not a tar ({error}); copy it again") from error
    check(folder)
