"""Checkpoints from elsewhere: ``hf://owner/name[/file][@revision]``, ``https://...``, ``s3://...`` and whatever fsspec opens.

Files are fetched once and kept under their content's hash; a download that was cut off goes on where it stopped, and a kept file
whose content changed is fetched again. Where there is no network, the message says what to fetch and where to put it.
"""

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from core import bounds
from core.errors import InputError
from core.files import FileError, sha256, write_json

# pathlib turns ``hf://a/b`` into ``hf:/a/b``; a letter and a colon is a drive of Windows
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])(.*)")
BLOCK, TIMEOUT = 2**20, 30.0  # bytes, seconds
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
BESIDE = ("config.json", "preprocessor_config.json")


def is_remote(source: Path | str) -> bool:
    """Tell whether a checkpoint is named by an address and not by a path."""
    return SCHEME.fullmatch(str(source)) is not None


def local(source: Path | str) -> Path:
    """Return the path of a checkpoint on this machine, fetched if it is an address; raise FileError when it cannot be had.

    A Hugging Face folder is returned as the file in it that holds, or lists, its weights.
    """
    match = SCHEME.fullmatch(str(source))
    if match is None:
        path = Path(source)
        return next((path / name for name in WEIGHTS if (path / name).is_file()), path) if path.is_dir() else path
    address = f"{match[1]}://{match[2]}"
    return _from_hub(address, match[2]) if match[1] == "hf" else _from_address(address)


def cache() -> Path:
    """Return the folder of fetched files: ``MASKTRANSFER_CACHE``, or one in the user's cache."""
    given = os.environ.get("MASKTRANSFER_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "masktransfer"


def _from_hub(address: str, place: str) -> Path:
    """Fetch a file of a repository on Hugging Face, or its weights, with the files beside them that tell what they are."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    path, _, revision = place.partition("@")
    owner, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    if not name:
        raise InputError(f"{address}: write hf://owner/name, hf://owner/name/file, and @revision after either")
    options: dict[str, Any] = {
        "revision": revision or None,
        "cache_dir": os.environ.get("HF_HUB_CACHE"),
        "local_files_only": os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes"),
    }

    unreached: list[Exception] = []

    def fetch(wanted: str) -> Path | None:
        try:
            return Path(str(huggingface_hub.hf_hub_download(f"{owner}/{name}", wanted, **options)))
        except LocalEntryNotFoundError as error:  # no network, and not in the cache
            unreached.append(error)
        except EntryNotFoundError:
            pass
        return None

    try:
        for beside in BESIDE:
            fetch(beside)
    except Exception:  # noqa: S110 - the weights are asked for next, and tell what is wrong
        pass
    try:
        asked = [file] if file else WEIGHTS
        found = next((there for wanted in asked if (there := fetch(wanted)) is not None), None)
        if found is not None and found.name.endswith(".index.json"):
            for shard in sorted(set(bounds.json_value(found, "an index", bounds.TEXT)["weight_map"].values())):
                fetch(shard)
        if found is None and unreached:
            raise unreached[0]
    except Exception as error:  # the hub's client raises its own and its transport's
        raise FileError(
            _unfetched(address, error, f"`hf download {owner}/{name}` on a machine with a network")
        ) from error
    if found is None:
        raise FileError(f"{address} has no {file or ' or '.join(WEIGHTS)}; name a file, as in hf://{owner}/{name}/FILE")
    return found


def _from_address(address: str) -> Path:
    """Fetch a file through fsspec; ``#sha256=...`` behind the address is what its content must have."""
    url, _, fragment = address.partition("#")
    wanted = fragment.removeprefix("sha256=")
    home = cache() / "weights"
    key = hashlib.sha256(url.encode()).hexdigest()
    note, part = home / f"{key}.json", home / f"{key}.part"
    name = url.rpartition("/")[2].partition("?")[0] or "weights.pth"
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{key}.lock"):  # of the processes that want it, one fetches
        return _fetched(address, url, wanted, note, part, name)


def _fetched(address: str, url: str, wanted: str, note: Path, part: Path, name: str) -> Path:
    """Return the kept file if it still is what is there, or fetch it."""
    home, kept = note.parent, _kept(note, wanted)
    try:
        state, opened = _http(url) if url.startswith(("http://", "https://")) else _fsspec(url)
        if kept is not None and kept[1] == state:
            return kept[0]
        _download(opened, part, state)
    except ImportError as error:
        raise InputError(f"{address}: {error}; install it, or fetch the file and give its path") from error
    except (FileNotFoundError, urllib.error.HTTPError) as error:
        if isinstance(error, FileNotFoundError) or error.code in (403, 404, 410):
            raise FileError(f"{address} is not there, or not for everyone; check the address") from error
        raise FileError(_unfetched(address, error, f"{url} on a machine with a network")) from error
    except Exception as error:  # fsspec passes on whatever its transports raise
        if kept is not None:
            return kept[0]
        raise FileError(_unfetched(address, error, f"{url} on a machine with a network")) from error
    digest = sha256(part)
    if wanted and digest != wanted:
        part.unlink()
        raise FileError(f"{address}: what was fetched has sha256 {digest}; correct the address, or fetch it again")
    final = home / digest / name
    final.parent.mkdir(exist_ok=True)
    os.replace(part, final)
    write_json(note, {"address": url, "sha256": digest, "state": state, "name": name})
    return final


# from a first byte on: the content, where it really begins, and how many bytes the file has (0: not known)
Opened = Callable[[int], tuple[BinaryIO, int, int]]


def _http(url: str) -> tuple[str, Opened]:
    """Return what the server says of the file's state, and how to read it."""
    asked = urllib.request.Request(url, method="HEAD")  # noqa: S310 - http or https
    with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310 - the same
        state = "|".join(str(answer.headers.get(key)) for key in ("ETag", "Last-Modified", "Content-Length"))

    def opened(first: int) -> tuple[BinaryIO, int, int]:
        ranged = {"Range": f"bytes={first}-"} if first else {}
        asked = urllib.request.Request(url, headers=ranged)  # noqa: S310 - the same
        answer = urllib.request.urlopen(asked, timeout=TIMEOUT)  # noqa: S310 - the same
        first = first if answer.status == 206 else 0
        return answer, first, first + int(answer.headers.get("Content-Length") or 0)

    return state, opened


def _fsspec(url: str) -> tuple[str, Opened]:
    """Return the same for what fsspec opens: s3, gs, az, ssh, ..."""
    import fsspec

    files, path = fsspec.core.url_to_fs(url)

    def opened(first: int) -> tuple[BinaryIO, int, int]:
        file = files.open(path, "rb")
        file.seek(first)
        return file, first, files.size(path) or 0

    return str(files.ukey(path)), opened


def _download(opened: Opened, part: Path, state: str) -> None:
    """Write ``part``, going on behind what is there of the same state."""
    begun = part.with_suffix(".state")
    have = part.stat().st_size if part.exists() and begun.exists() and begun.read_text() == state else 0
    begun.write_text(state)
    content, first, size = opened(have)
    with content, open(part, "r+b" if first else "wb") as target:
        target.seek(first)
        while block := content.read(BLOCK):
            target.write(block)
    if size and part.stat().st_size != size:
        raise OSError(f"the connection ended after {part.stat().st_size} of {size} bytes; the same command goes on")
    begun.unlink()


def _kept(note: Path, wanted: str) -> tuple[Path, str] | None:
    """Return the kept file and the state that its address had, unless its content is no longer what was fetched."""
    try:
        told = bounds.json_value(note, "a note", bounds.TEXT)
        file = note.parent / told["sha256"] / told["name"]
        whole = sha256(file) == told["sha256"] and wanted in ("", told["sha256"])
        return (file, str(told["state"])) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unfetched(address: str, error: Exception, what: str) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{address} cannot be fetched ({reason[:200]}); fetch {what}, and give the file's path here"
