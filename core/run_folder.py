"""A work folder belongs to one run: the same command goes on in it, and another one is refused before it overwrites anything."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import sha256, write_json

FILE = "settings.json"
CHECKPOINT = "last_checkpoint"  # both frameworks keep it once there is a checkpoint to go on from
SHOWN = 3


def open_folder(folder: Path, settings: Mapping[str, Any], resume: bool, option: str) -> tuple[bool, list[str]]:
    """Return whether to go on from the folder's last checkpoint, and what to say of it; keep the settings of a new run.

    ``settings`` is flat, key to value; ``option`` names what the folder was given with. ``resume`` goes on in any case, as
    both frameworks' own flag does. Without it, raises InputError for a folder with checkpoints of other settings.
    """
    now = {key: str(value) for key, value in settings.items()}
    if not (folder / CHECKPOINT).is_file():
        write_json(folder / FILE, now)
        return False, []
    changed = differences(_kept(folder), now)
    if changed and not resume:
        raise InputError(
            f"{folder} holds a run of other settings (different: {changed}); choose another {option}, or go on from its "
            "last checkpoint with --resume"
        )
    return True, [
        f"going on from the last checkpoint in {folder}" + (f"; different from before: {changed}" if changed else "")
    ]


def differences(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Return the first keys that differ, as text; empty when none does."""
    if before is None:
        return f"no {FILE} tells them"
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
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


def _kept(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
