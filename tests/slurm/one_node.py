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

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "sacct")
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
# The default: Snakemake, which asks now and then, must see that a job has ended.
MinJobAge=300
InactiveLimit=0
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2 Feature=fast State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=1440 State=UP OverSubscribe=FORCE:4
PartitionName=short Nodes=localhost MaxTime=30 MaxMemPerNode=2000 State=UP
PartitionName=closed Nodes=localhost AllowAccounts=physics State=DOWN
"""


def missing_programs() -> list[str]:
    """Programs of Slurm and munge that are not installed."""
    return [program for program in (*DAEMONS, *CLIENTS) if _found(program) is None]


class OneNode:
    """The daemons; `environment` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
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
        # As on a real cluster, clients know where the configuration is, whatever their environment.
        (folder / "bin").mkdir()
        for client in CLIENTS:
            script = folder / "bin" / client
            script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_found(client)} "$@"\n')
            script.chmod(0o755)
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
        done = subprocess.run([str(self.folder / "bin" / command[0]), *command[1:]], capture_output=True, text=True)
        return done.stdout

    def _start(self, program: str, *arguments: str) -> None:
        environment = {**self.environment, "SLURM_CONF": str(self.folder / "slurm.conf")}
        with (self.folder / f"{program}.out").open("wb") as said:
            daemon = subprocess.Popen([str(_found(program)), *arguments], env=environment, stdout=said, stderr=said)
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


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
