"""A Slurm cluster of one node, this machine, for tests: munged, slurmctld and slurmd with files below one folder."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from transfer.suite import process

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun")
CGROUPS = ("cgroup/v1", "disabled", "cgroup/v2")  # no version knows, and no machine bears, all of them
CONFIG = """\
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=toy,gpu
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 Gres=toy:2,gpu:2 State=UNKNOWN
PartitionName=small Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


class Unavailable(Exception):
    """The cluster cannot run here; the message says why."""


class Cluster:
    """Start the daemons in ``home`` (a short path: munge's socket lies below it); ``stop`` ends them."""

    def __init__(self, home: Path) -> None:
        self.home, self.daemons = home, list[subprocess.Popen]()
        self.environment = {**os.environ, "SLURM_CONF": str(home / "slurm.conf")}
        if missing := [name for name in PROGRAMS if self._path(name) is None]:
            raise Unavailable(f"no {', '.join(missing)}: install slurm-wlm and munge")
        try:
            self._configure()
            self._start_daemons()
        except BaseException:
            self.stop()
            raise

    def call(self, *command: str) -> str:
        """Return what a Slurm command printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        if len(self.daemons) == 3:
            subprocess.run(["scancel", "--me"], env=self.environment, capture_output=True, timeout=30)
            end = time.monotonic() + 15
            while time.monotonic() < end and self._jobs_left():
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            process.stop(daemon)

    def _jobs_left(self) -> bool:
        done = subprocess.run(["squeue", "--noheader"], env=self.environment, capture_output=True, timeout=30)
        return bool(done.stdout.strip())

    @staticmethod
    def _path(name: str) -> str | None:
        return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")

    def _configure(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.home / name).mkdir(mode=0o700)
        (self.home / "munge" / "key").write_bytes(os.urandom(1024))
        (self.home / "munge" / "key").chmod(0o600)
        places = {"home": self.home, "host": socket.gethostname().split(".")[0], "ports": _free_ports(2)}
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        (self.home / "slurm.conf").write_text(CONFIG.format(user=user, **places))
        (self.home / "gres.conf").write_text("Name=toy Count=2\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n")

    def _start_daemons(self) -> None:
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.home}/munge/{name}" for option, name in munge.items()]
        self._start("munged", "--foreground", "--force", *options)
        self._wait(lambda: (self.home / "munge" / "socket").exists(), "munged")
        for plugin in CGROUPS:
            (self.home / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
            if plugin == CGROUPS[0]:
                self._start("slurmctld", "-D")
            self._start("slurmd", "-D")
            try:
                return self._wait(lambda: "idle" in self._state(), "slurmd")
            except Unavailable:
                if plugin == CGROUPS[-1]:
                    raise
                process.stop(self.daemons.pop())

    def _start(self, name: str, *options: str) -> None:
        """Start a daemon that ends with us, whatever becomes of us."""
        command = [str(self._path(name)), *options]
        self.daemons.append(process.start(command, self.home / f"{name}.log", self.environment))

    def _state(self) -> str:
        command = ["sinfo", "--noheader", "--format=%t", "--partition=small"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30).stdout

    def _wait(self, condition, daemon: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self.daemons[-1].poll() is not None or time.monotonic() > end:
                log = (self.home / f"{daemon}.log").read_text(errors="replace").strip().splitlines()
                raise Unavailable(f"{daemon} does not start here: {' / '.join(log[-3:])}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [place.getsockname()[1] for place in sockets]
    for place in sockets:
        place.close()
    return ports
