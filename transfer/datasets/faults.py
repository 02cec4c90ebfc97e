"""Count records that training leaves out: a few are as published, many mean that a converter went wrong."""

from pathlib import Path

from core.errors import InputError

ONE_IN = 1000  # COCO 2017 itself has some boxes without area among 860,001; both frameworks drop them


class Faults:
    """Faults of the records of one file or list, by kind."""

    def __init__(self, source: Path, *kinds: str) -> None:
        self.source = source
        self.first: dict[str, str] = {}
        self.counts = dict.fromkeys(kinds, 0)

    def add(self, kind: str, where: str) -> None:
        """Note one faulty record."""
        self.counts[kind] += 1
        self.first.setdefault(kind, where)

    def settled(self, *totals: int) -> dict[str, int]:
        """Return the counts; raise InputError where one is more than one in ``ONE_IN`` of its kind's total."""
        for (kind, count), total in zip(self.counts.items(), totals, strict=True):
            if count * ONE_IN > total:
                raise InputError(
                    f"{self.source} has {count} {kind} among {total}, first {self.first[kind]}; remove or repair them"
                )
        return dict(self.counts)
