"""A real Slurm of one node on loopback, out of Debian's packages, in a folder of its own; no accounting."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
SETUP = "apt-get install -y --no-install-recommends slurm-wlm munge"

# Cores and memory are said, not had, so that jobs start at once; its two GPUs are none.
CONFIGURATION = """
ClusterName=visae
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
# Ended jobs are forgotten soon, as on a busy cluster.
MinJobAge=20
InactiveLimit=0
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=1440 State=UP OverSubscribe=FORCE:4
"""


def missing_programs() -> list[str]:
    """Programs of Slurm and munge that are not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


class OneNode:
    """The daemons; `environment` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] += os.pathsep + "/usr/sbin"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munged, slurmctld and slurmd, and wait until the node is idle."""
        folder = self.folder
        # munged refuses folders that others could write to, all the way up; /tmp with its sticky bit is fine.
        folder.mkdir(mode=0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
        text = CONFIGURATION.format(folder=folder, user=getpass.getuser(), **ports)
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder}/munge.{end}" for option, end in places.items()]
        self._start("munged", "--foreground", "--force", *options)
        self._wait_for((folder / "munge.socket").exists, "munged")
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", "localhost")
        self._wait_for(lambda: self.run("sinfo", "-h", "-o", "%T").strip() == "idle", "the node")

    def stop(self) -> None:
        """Cancel what runs, then end the daemons."""
        self.run("scancel", "--user", getpass.getuser())
        self._wait_for(lambda: not self.run("squeue", "-h"), "the end of all jobs", fail=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def run(self, *command: str) -> str:
        """Return what a client prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout

    def _start(self, program: str, *arguments: str) -> None:
        found = shutil.which(program, path=self.environment["PATH"])
        assert found is not None
        with (self.folder / f"{program}.out").open("wb") as said:
            daemon = subprocess.Popen([found, *arguments], env=self.environment, stdout=said, stderr=said)
        self._daemons.append(daemon)

    def _wait_for(self, ready, what: str, fail: bool = True) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if ready():
                return
            time.sleep(0.2)
        if fail:
            logs = "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.[lo][ou][gt]"))
            raise RuntimeError(f"{what} did not come within 30 s\n{logs}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
