"""Execute items on this machine: one process a slot, each slot with a device of its own, or a share of the cores."""

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from transfer.suite import process
from transfer.suite.execution import Attempt, Limits, Work
from transfer.suite.launchers import Launcher, LauncherSettings

PAUSE = 0.05  # seconds between looks at the running processes
RETRY = 1.0  # seconds between looks at items that another runner held
_NVIDIA = Path("/proc/driver/nvidia/gpus")


class Local(Launcher):
    """Slots are dealt the devices in turn; a suite that ends takes its processes with it."""

    class Config(LauncherSettings):
        """``devices`` are what CUDA_VISIBLE_DEVICES understands; None: those that there are, []: none, the CPU.

        ``jobs`` is by default one for each device, and one without.
        """

        name: Literal["local"] = "local"
        devices: tuple[str, ...] | None = Field(None, description="for example ['0', '1']")

    config: Config

    def check(self, limits: Limits) -> None:
        """See the contract; every machine can execute items."""

    @property
    def width(self) -> int:
        """See the contract."""
        return self.config.jobs or max(len(self._devices()), 1)

    def run(self, work: Work) -> None:
        """See the contract."""
        free, running = self.slots(), dict[Attempt, dict[str, str]]()
        look = 0.0  # when to look again at what could not be taken
        try:
            while work.unfinished():
                for attempt in [attempt for attempt in running if attempt.over()]:
                    free.append(running.pop(attempt))
                    work.settle(attempt)
                    look = 0.0
                if free and time.monotonic() >= look:
                    self._fill(work, free, running)
                    look = time.monotonic() + RETRY
                work.observe(None)
                if running or work.unfinished():
                    time.sleep(PAUSE)
        finally:
            _stop(work, list(running))

    def _fill(self, work: Work, free: list[dict[str, str]], running: dict[Attempt, dict[str, str]]) -> None:
        """Start what is ready while there is a free slot; an item that settles at once may make others ready."""
        seen = -1
        while free and (ready := work.ready()) and len(ready) != seen:
            seen = len(ready)
            for item in ready:
                if not free:
                    return
                if (attempt := work.take(item, free[0])) is not None:
                    running[attempt] = free.pop(0)

    def slots(self) -> list[dict[str, str]]:
        """Return the environment of each slot."""
        devices = self._devices()
        threads = process.threads(self.threads, self.width)
        if not devices:
            hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.config.devices is not None else {}
            return [threads | hidden for _ in range(self.width)]
        return [threads | {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} for slot in range(self.width)]

    def _devices(self) -> tuple[str, ...]:
        if self.config.devices is not None:
            return self.config.devices
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return tuple(device.strip() for device in visible.split(",") if device.strip() not in ("", "-1"))
        return tuple(str(number) for number, _ in enumerate(_NVIDIA.glob("*")))


def _stop(work: Work, running: list[Attempt]) -> None:
    """End what runs, all at the same time; it was stopped, it did not fail: the next start goes on there."""
    for attempt in running:
        attempt.terminate()
    deadline = time.monotonic() + process.GRACE
    for attempt in running:
        attempt.stop(deadline - time.monotonic())
        work.statuses[attempt.item.name].state = "waiting"
