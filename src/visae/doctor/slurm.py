"""What Slurm would say to the request of a training job, asked before anything is submitted."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.settings import Settings
from visae.config.strict_yaml import read_strictly
from visae.config.times import SLURM_TIME, slurm_minutes
from visae.doctor.needs import Wanted
from visae.doctor.report import Section
from visae.errors import ConfigError

PROFILE = Path("profiles/slurm/profile.yaml")
_STATUS = "slurm-status-command"
_FEATURE = re.compile(r"[\w.-]+")
_FORGETS = 60  # seconds for which the controller should know an ended job


@dataclass(frozen=True)
class Asked:
    """What a training job asks for, as `visae.launch.slurm` hands it to sbatch."""

    minutes: int
    memory_mb: int
    cpus: int
    gpus: int
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None

    @classmethod
    def of(cls, settings: Settings) -> Asked:
        """Take it from a configuration."""
        slurm = settings.slurm
        gpus = slurm.gpus if slurm.gpus is not None else int(settings.device != "cpu")
        limits = (slurm.minutes, int(1000 * slurm.memory_gb), slurm.cpus, gpus)
        return cls(*limits, slurm.partition, slurm.account, slurm.qos, slurm.constraint)

    def options(self) -> list[str]:
        """Options of sbatch."""
        found = [f"--time={self.minutes}", f"--mem={self.memory_mb}MB", f"--cpus-per-task={self.cpus}"]
        found += [f"--gres=gpu:{self.gpus}"] if self.gpus else []
        names = ("partition", "account", "qos", "constraint")
        return found + [f"--{name}={value}" for name in names if (value := getattr(self, name)) is not None]


def of_slurm(settings: Settings, wanted: Wanted) -> Section:
    """Look at the request beside partitions, nodes, limits and accounts, and ask sbatch, which queues nothing."""
    section = Section("Slurm")
    asked = Asked.of(settings)
    with section.looking("Slurm"):
        try:
            config = _config(_said("scontrol", "show", "config"))
        except (OSError, subprocess.SubprocessError) as error:
            section.wrong(f"the controller does not answer: {error}", "run on a login node, or cluster: local")
            return section
        section.fine(f"Slurm {config.get('SLURM_VERSION', '?')} answers (cluster {config.get('ClusterName', '?')})")
        profile = _profile(section)
        _of_partition(section, asked, int(profile.get("retries", 0)))
        if settings.device == "cuda" and not asked.gpus:
            section.wrong("device: cuda, and slurm: gpus: 0", "slurm: gpus: 1")
        _of_memory(section, asked, wanted)
        _of_arrays(section, settings, config)
        _of_accounting(section, config, profile)
        _of_association(section, asked, config)
        _of_test_submission(section, asked)
    return section


def _said(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=environment).stdout


def _config(said: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in said.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _rows(said: str) -> list[dict[str, str]]:
    """Rows of `scontrol show … --oneliner`."""
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in said.splitlines() if "=" in line]


def _profile(section: Section) -> dict[str, Any]:
    """Snakemake's profile for Slurm in this checkout."""
    if not PROFILE.is_file():
        return {}
    try:
        return read_strictly(PROFILE)
    except ConfigError as error:
        section.wrong(str(error))
        return {}


# --- partition and nodes -----------------------------------------------------------------------------


def _of_partition(section: Section, asked: Asked, retries: int) -> None:
    partitions = {row["PartitionName"]: row for row in _rows(_said("scontrol", "show", "partition", "--oneliner"))}
    default = next((name for name, row in partitions.items() if row.get("Default") == "YES"), None)
    names = (asked.partition or default or "").split(",")
    if names == [""]:
        section.wrong(
            "slurm: partition: none is named and the cluster has no default", _one_of("partition", partitions)
        )
        return
    for name in names:
        if name not in partitions:
            section.wrong(f"slurm: partition: {name}: there is none of that name", _one_of("partition", partitions))
            continue
        found = len(section.findings)
        _of_limits(section, asked, partitions[name], retries)
        _of_nodes(section, asked, name)
        if len(section.findings) == found:
            section.fine(f"partition {name} has nodes for {', '.join(asked.options())}")


def _of_limits(section: Section, asked: Asked, row: dict[str, str], retries: int) -> None:
    """Limits of a partition, which many clusters check only after a job was accepted: it then waits for ever."""
    name = row["PartitionName"]
    if row.get("State") != "UP":
        section.wrong(f"partition {name} is {row.get('State')}: its jobs wait", "slurm: partition: another")
    longest, most = _minutes(row.get("MaxTime", "")), asked.minutes * 2**retries
    if asked.minutes > longest:
        section.wrong(
            f"partition {name} allows {longest:g} minutes (MaxTime {row['MaxTime']}), and slurm: minutes: "
            f"{asked.minutes} is more: the job would wait for ever (PartitionTimeLimit)",
            f"slurm: minutes: {longest:g}; training is requeued and goes on",
        )
    elif most > longest:
        section.odd(
            f"partition {name} allows {longest:g} minutes, and the profile's {retries} retries double "
            f"{asked.minutes} up to {most}",
            f"slurm: minutes: {longest // 2**retries:g}, or retries: {max(0, int(math.log2(longest / asked.minutes)))}",
        )
    for key, value, unit in (("MaxMemPerNode", asked.memory_mb, "MB"), ("MaxCPUsPerNode", asked.cpus, "cores")):
        if row.get(key, "").isdecimal() and value > int(row[key]):
            section.wrong(
                f"partition {name} allows {row[key]} {unit} a node, and {value} are asked for", "ask for less"
            )
    for key, own in (("Accounts", asked.account), ("Qos", asked.qos)):
        allowed = row.get(f"Allow{key}", "ALL").split(",")
        if own is not None and allowed != ["ALL"] and own not in allowed:
            section.wrong(f"partition {name} does not allow {own}", f"one of {', '.join(allowed)}")


def _of_nodes(section: Section, asked: Asked, partition: str) -> None:
    """Whether one node of a partition has all that is asked for, and if not, which part none has."""
    nodes = [
        row
        for row in _rows(_said("scontrol", "show", "node", "--oneliner"))
        if partition in row.get("Partitions", "").split(",")
    ]
    features = {name for row in nodes for name in row.get("AvailableFeatures", "").split(",")} - {"(null)", ""}
    wishes: dict[str, tuple[Callable[[dict[str, str]], bool], str]] = {
        f"cpus: {asked.cpus}": (lambda row: int(row.get("CPUTot", 0)) >= asked.cpus, _most(nodes, "CPUTot", "cores")),
        f"memory_gb: {asked.memory_mb / 1000:g}": (
            lambda row: int(row.get("RealMemory", 0)) >= asked.memory_mb,
            _most(nodes, "RealMemory", "MB"),
        ),
        f"gpus: {asked.gpus}": (
            lambda row: gpus_of(row.get("Gres", "")) >= asked.gpus,
            f"the most is {max((gpus_of(row.get('Gres', '')) for row in nodes), default=0)} a node",
        ),
    }
    if asked.constraint and _FEATURE.fullmatch(asked.constraint):
        wishes[f"constraint: {asked.constraint}"] = (
            lambda row: asked.constraint in row.get("AvailableFeatures", "").split(","),
            f"features are {', '.join(sorted(features)) or 'none'}",
        )
    lacking = [(wish, hint) for wish, (has, hint) in wishes.items() if not any(map(has, nodes))]
    for wish, hint in lacking:
        section.wrong(f"no node of partition {partition} has slurm: {wish}", f"ask for less, or another: {hint}")
    if nodes and not lacking and not any(all(has(row) for has, _ in wishes.values()) for row in nodes):
        section.wrong(
            f"no single node of partition {partition} has {', '.join(wishes)} together", "ask for less of one"
        )
    up = [row for row in nodes if not re.search(r"DOWN|DRAIN|FAIL|MAINT|NOT_RESPONDING", row.get("State", ""))]
    if nodes and not up:
        section.odd(f"all {len(nodes)} nodes of partition {partition} are down or drained now; jobs wait")


def gpus_of(gres: str) -> int:
    """GPUs in a node's generic resources, such as `gpu:a100:4(S:0-1),nvme:1`."""
    parts = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres)
    return sum(map(int, parts))


def _minutes(limit: str) -> float:
    return slurm_minutes(limit) if re.match(SLURM_TIME, limit) else math.inf


def _most(nodes: list[dict[str, str]], key: str, unit: str) -> str:
    return f"the most is {max((int(row.get(key, 0)) for row in nodes), default=0)} {unit} a node"


def _one_of(key: str, names: dict[str, dict[str, str]]) -> str:
    return f"slurm: {key}: one of {', '.join(sorted(names))}"


# --- the rest ----------------------------------------------------------------------------------------


def _of_memory(section: Section, asked: Asked, wanted: Wanted) -> None:
    """Weights, gradients and Adam's moments of what trains together, beside what a job asks for."""
    largest = max((need.memory_bytes / need.count for need in wanted.saes), default=0)
    if largest > 1e6 * asked.memory_mb and not asked.gpus:
        section.wrong(
            f"slurm: memory_gb: {asked.memory_mb / 1000:g}: an SAE needs {largest / 1e9:.1f} GB for weights, gradients "
            "and Adam's moments alone",
            f"slurm: memory_gb: {math.ceil(2 * largest / 1e9)}",
        )


def _of_arrays(section: Section, settings: Settings, config: dict[str, str]) -> None:
    tasks = {(study.train_on, study.stored_model, study.point) for study in settings.studies.values()}
    allowed = config.get("MaxArraySize", "")
    if allowed.isdecimal() and len(tasks) > int(allowed):
        section.wrong(
            f"{len(tasks)} trainings may become one job array, and MaxArraySize is {allowed}",
            "run stages apart (`--until`), or fewer studies at once",
        )


def _of_accounting(section: Section, config: dict[str, str], profile: dict[str, Any]) -> None:
    """Without accounts the executor plugin takes sacct, because the program is there, and waits for ever."""
    if _answers("sacct", "--noheader", "--allocations"):
        section.fine("sacct answers: ended jobs are known from the accounts")
        return
    kept = config.get("MinJobAge", "").split(" ")[0]
    command = f"--{_STATUS} squeue"
    text = "the cluster keeps no accounts (sacct does not answer), so Snakemake has to ask the controller"
    if profile.get(_STATUS) == "squeue":
        section.fine(f"{text}; {PROFILE} says so, and without that profile give {command}")
    else:
        section.wrong(f"{text}; its Slurm plugin takes sacct all the same and waits for ever", f"give {command}")
    if kept.isdecimal() and int(kept) < _FORGETS:
        section.odd(
            f"the controller forgets ended jobs after {kept} s (MinJobAge), which Snakemake may not see in time",
            "ask for a larger MinJobAge, or --seconds-between-status-checks below it",
        )


def _answers(*command: str) -> bool:
    try:
        _said(*command)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _of_association(section: Section, asked: Asked, config: dict[str, str]) -> None:
    """Accounts and qualities of service that the database has for this user."""
    if "slurmdbd" not in config.get("AccountingStorageType", ""):
        return
    try:
        said = _said("sacctmgr", "-nP", "show", "assoc", f"user={os.environ.get('USER', '')}", "format=account,qos")
    except (OSError, subprocess.SubprocessError):
        return
    known = {name: set(qos.split(",")) for name, _, qos in (line.partition("|") for line in said.splitlines()) if name}
    for key, value, names in (("account", asked.account, set(known)), ("qos", asked.qos, set().union(*known.values()))):
        if value is not None and names and value not in names:
            section.wrong(f"slurm: {key}: {value} is none of yours", f"slurm: {key}: one of {', '.join(sorted(names))}")


def _of_test_submission(section: Section, asked: Asked) -> None:
    """Slurm's own word: `sbatch --test-only` looks at a job and queues none."""
    command = ["sbatch", "--test-only", *asked.options(), "--wrap=true"]
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_JOB", "SBATCH_"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**outside, "LC_ALL": "C"})
    said = "\n".join(_lines(done.stderr + done.stdout))
    if done.returncode == 0:
        section.fine(f"sbatch would take the training job: {said.removeprefix('sbatch: ')}")
    else:
        section.wrong(f"sbatch would refuse the training job:\n{said}", f"it was: {shlex.join(command)}")


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())
