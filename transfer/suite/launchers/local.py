"""Execute items on this machine: one process a slot, each slot with a device of its own, or a share of the cores."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from transfer.suite import process, warm
from transfer.suite.execution import Attempt, Limits, Work
from transfer.suite.launchers import Launcher, LauncherSettings

PAUSE = 0.05  # seconds between looks at the running processes
RETRY = 1.0  # seconds between looks at items that another runner held
_NVIDIA = Path("/proc/driver/nvidia/gpus")


class Local(Launcher):
    """Devices are dealt to items as these come; a suite that ends takes its processes with it."""

    class Config(LauncherSettings):
        """``devices`` are what CUDA_VISIBLE_DEVICES understands; None: those that there are, []: none, the CPU.

        ``jobs`` is by default one for each device, and one without; with more jobs than devices, items share them.
        """

        name: Literal["local"] = "local"
        devices: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] | None = Field(
            None, description="for example [0, 1]"
        )

    config: Config
    warmth: Mapping[str, str] = {}  # how commands find the warm process

    def check(self, limits: Limits) -> None:
        """See the contract; every machine can execute items."""

    @property
    def width(self) -> int:
        """See the contract."""
        return self.config.jobs or max(len(self._devices()), 1)

    @property
    def available(self) -> int:
        """See the contract."""
        return len(self._devices())

    def run(self, work: Work) -> None:
        """See the contract."""
        waiting = [item for item in work.items if work.statuses[item.name].state == "waiting"]
        worth = len(waiting) > 1 and not self.available  # what is imported without devices would go on without
        modules = dict.fromkeys(module for item in waiting for module in item.modules) if worth else ()
        with warm.kept([*modules], self.environment([], 1)) as self.warmth:
            self._run(work)

    def _run(self, work: Work) -> None:
        free, running = self.slots(), dict[Attempt, list[str]]()
        look = 0.0  # when to look again at what could not be taken
        try:
            while work.unfinished():
                for attempt in [attempt for attempt in running if attempt.over()]:
                    free += running.pop(attempt)
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

    def _fill(self, work: Work, free: list[str], running: dict[Attempt, list[str]]) -> None:
        """Start what is ready while devices are free, in order: an item that needs several is not overtaken by small ones.

        An item that settles at once may make others ready.
        """
        seen = -1
        while free and (ready := work.ready()) and len(ready) != seen:
            seen = len(ready)
            for item in ready:
                chosen = self._chosen(item.devices, free)
                if not chosen or len(running) == self.width:
                    return
                environment = {**self.warmth, **self.environment(chosen, item.devices)}
                if (attempt := work.take(item, environment)) is not None:
                    running[attempt] = chosen
                    for slot in chosen:
                        free.remove(slot)

    def _chosen(self, devices: int, free: list[str]) -> list[str]:
        """Return different free devices for an item, nothing where there are too few; without devices a free slot."""
        if not self.available:
            return free[:1]
        different = [device for device in self._devices() if device in free]
        return different[:devices] if len(different) >= devices else []

    def slots(self) -> list[str]:
        """Return the devices to deal, each as often as items may share it; without devices an empty name a job."""
        devices = self._devices() or ("",)
        return [devices[slot % len(devices)] for slot in range(max(self.width, len(devices)))]

    def environment(self, chosen: list[str], processes: int) -> dict[str, str]:
        """Return what an item's environment says of its devices and of the threads of each of its processes."""
        threads = process.threads(self.threads, max(self.width, processes))
        if self.available or self.config.devices is not None:
            return {**threads, "CUDA_VISIBLE_DEVICES": ",".join(chosen)}
        return threads

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
