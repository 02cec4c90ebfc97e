"""A run folder belongs to one run: the same command goes on in it, and another one is refused before it overwrites anything.

One contract for pre-training, trials, suites and the frameworks' training: a lock that the kernel holds from the first moment,
and a file that tells the settings of what lies there.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core import bounds
from core.errors import InputError
from core.files import sha256, sweep, unwritable, write_json

FILE = "settings.json"
LOCK = ".run.lock"
CHECKPOINT = "last_checkpoint"  # the frameworks keep it once there is a checkpoint to go on from
SHOWN = 3


def hold(folder: Path, seconds: float = 0.0, lock: str = LOCK) -> FileLock:
    """Take a folder's lock, which the kernel lets go of when this process ends; make the folder if it is not there.

    ``seconds`` is how long to wait for another holder (a killed one may still be saving). Raises InputError when there is one
    still, and when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / lock)
        held.acquire(timeout=seconds)
        sweep(folder)
    except Timeout as error:
        raise InUse(f"{folder} is in use by another process; wait for it, or choose another folder") from error
    except OSError as error:
        raise unwritable(folder, error) from error
    return held


def has_checkpoint(folder: Path) -> bool:
    """Tell whether there is something to go on with: the frameworks' pointer, or a checkpoint whose pointer was not written."""
    return (folder / CHECKPOINT).is_file() or any(folder.glob("*.pth"))


class InUse(InputError):
    """Another process holds the folder."""


def open_folder(
    folder: Path,
    settings: Mapping[str, Any],
    resume: bool,
    option: str,
    *,
    begun: bool | None = None,
    kept: Mapping[str, Any] | None = None,
    free: Collection[str] = (),
    file: str = FILE,
    can_resume: bool = True,
) -> tuple[bool, list[str]]:
    """Return whether to go on with what is in the folder, and what to say of it; keep the settings of a new run.

    ``settings`` is flat, key to value; ``option`` names what the folder was given with. ``begun`` tells whether there is
    something to go on with (default: a last checkpoint); ``kept`` are the settings of that (default: those in ``file``), and
    ``free`` keys (and those below them) may differ, for they change how it is computed and not what. ``resume`` goes on in any
    case, as both frameworks' own flag does (``can_resume``: the user has such a flag). Without it, raises InputError for a folder
    of other settings, naming what differs.
    """
    now = {key: str(value) for key, value in settings.items()}
    if not (has_checkpoint(folder) if begun is None else begun):
        write_json(folder / file, now)
        return False, []
    before = bounds.mapping(folder / file) if kept is None else kept
    onward = ", or go on from its last checkpoint with --resume" if can_resume else ""
    changed = differences(before, now, free, file)
    if changed and not resume:
        raise another(folder, changed, option, onward)
    return True, [
        f"going on from the last checkpoint in {folder}" + (f"; different from before: {changed}" if changed else "")
    ]


def another(folder: Path, changed: str, option: str, onward: str = "") -> InputError:
    """Return the error of a folder that holds a run of other settings; ``changed`` names them."""
    return InputError(f"{folder} holds a run of other settings (different: {changed}); choose another {option}{onward}")


def differences(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], free: Collection[str] = (), file: str = FILE
) -> str:
    """Return the first keys that differ, as text; empty when none does."""
    if before is None:
        return f"no {file} tells them"
    before, now = ({key: str(value) for key, value in values.items()} for values in (before, now))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    keys = [key for key in changed if not any(f"{key}.".startswith(f"{one}.") for one in free)]
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key of nested mappings as a dotted path, with its value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def content(file: Path | str | None) -> str:
    """Return what tells one weights file from another: its sha256, or its name where it is not there."""
    return sha256(Path(file)) if file and Path(file).is_file() else str(file or "")


def fingerprint(folder: Path) -> str:
    """Return what checkpoints of a folder's run keep of its settings, so that one of another run is told; empty without any."""
    kept = bounds.mapping(folder / FILE)
    return "" if kept is None else hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def check_own(folder: Path, checkpoint: Path | str, kept: Any) -> None:
    """Raise InputError when a checkpoint says that it is of a run of other settings than its folder's (``fingerprint``)."""
    if kept and kept != fingerprint(folder):
        raise InputError(
            f"{checkpoint} is of another run than {folder / FILE} tells; put the run's own checkpoint there, or choose another "
            "folder"
        )
