"""Keep what is slow to read or draw between two reports of one results folder, by file, size and time of change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import write_atomic

FILE = ".report-cache.json"
VERSION = 2  # of what is kept: other ones are thrown away


class Cache:
    """Values of files; what was not asked for since it was opened is dropped when it is saved."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._root = str(folder) + "/"
        self._old, self._new = self._read(), {}  # type: dict[str, Any], dict[str, Any]

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        usable = isinstance(values, dict) and values.get("version") == VERSION
        return values["values"] if usable and isinstance(values.get("values"), dict) else {}

    def get(self, kind: str, path: Path, make: Callable[[Path], Any], usable: Callable[[Any], bool]) -> Any:
        """Return what ``make(path)`` gives, kept or made now; None for a file that is not there.

        ``kind`` names what is made, with its settings; a kept value that is not ``usable`` is made again.
        """
        try:
            state = path.stat()
        except OSError:
            return None
        key = f"{kind} {str(path).removeprefix(self._root)} {state.st_mtime_ns} {state.st_size}"
        if key not in self._new:
            kept = self._old.get(key)
            self._new[key] = kept if kept is not None and usable(kept) else make(path)
        return self._new[key]

    def save(self) -> None:
        """Write what was used this time, if it changed; a folder that cannot be written keeps nothing."""
        if self._new.keys() != self._old.keys():
            try:
                write_atomic(self._path, json.dumps({"version": VERSION, "values": self._new}))
            except InputError:
                return
