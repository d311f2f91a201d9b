"""What this machine computes with: cores, memory, GPU, and whether torch can use them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from visae.config.settings import Settings
from visae.doctor.needs import Wanted
from visae.doctor.report import Section
from visae.space import room_at

_SHARED_MEMORY = Path("/dev/shm")
_LITTLE_SHARED = 256e6
_MUCH = 0.8  # of memory


def of_device(settings: Settings, wanted: Wanted, where: str) -> Section:
    """Look at this machine; on a cluster it is the login node, and jobs run elsewhere."""
    section = Section("this machine" if where != "slurm" else "this machine (training jobs run on others)")
    with section.looking("it"):
        _of_gpu(section, settings, wanted, where)
        _of_cores(section)
        _of_memory(section, wanted, where)
        _of_shared_memory(section, settings)
    return section


def _of_gpu(section: Section, settings: Settings, wanted: Wanted, where: str) -> None:
    if torch.cuda.is_available():
        name, (_, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
        bfloat16 = "has bfloat16" if torch.cuda.is_bf16_supported() else "has no bfloat16"
        section.fine(f"{torch.cuda.device_count()} GPUs: {name}, {total / 1e9:.1f} GB, {bfloat16}")
        needed = max((need.memory_bytes for need in wanted.saes), default=0)
        if settings.device != "cpu" and where != "slurm" and needed > _MUCH * total:
            section.wrong(
                f"SAEs that train together need {needed / 1e9:.1f} GB for weights, gradients and Adam's moments",
                "fewer members in a sweep, a smaller expansion, or a larger GPU",
            )
        if settings.device == "cpu":
            section.odd("device: cpu, though there is a GPU", "device: auto")
        return
    sees = shutil.which("nvidia-smi") is not None
    build = (
        f"torch {torch.__version__} (built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPUs alone'})"
    )
    if settings.device == "cuda":
        say = section.odd if where == "slurm" else section.wrong
        say(f"device: cuda: {build} sees no GPU here", "device: auto or cpu, or run where there is one")
    elif sees and settings.device == "auto":
        section.odd(f"nvidia-smi is here, but {build} sees no GPU", "install a build of torch for its driver")
    else:
        section.fine(f"computes on the CPU: {build}")
    slow = sorted(name for name, model in settings.models.items() if model.precision == "bfloat16")
    if slow and where != "slurm":
        section.odd(f"models: {', '.join(slow)}: precision: bfloat16 is slow on most CPUs", "precision: float32")


def _of_cores(section: Section) -> None:
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and threads.isdecimal() and int(threads) > cores:
        section.odd(f"OMP_NUM_THREADS={threads} on {cores} cores: threads wait for one another", f"at most {cores}")
    else:
        section.fine(f"{cores} cores")


def memory_limit() -> int:
    """Bytes that processes here may use: those of the machine, or fewer where a container or job says so."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(file).is_file() and (text := Path(file).read_text().strip()).isdecimal():
            total = min(total, int(text))
    return total


def _of_memory(section: Section, wanted: Wanted, where: str) -> None:
    total, needed = memory_limit(), max((need.memory_bytes for need in wanted.saes), default=0)
    text = f"{total / 1e9:.1f} GB of memory"
    if where == "slurm" or torch.cuda.is_available() or not needed:
        section.fine(text)
    elif needed > _MUCH * total:
        section.wrong(
            f"{text}; SAEs that train together need {needed / 1e9:.1f} GB for weights, gradients and Adam's moments",
            "fewer members in a sweep, or a smaller expansion",
        )
    else:
        section.fine(f"{text}; the largest training holds {needed / 1e9:.2f} GB of weights, gradients and moments")


def _of_shared_memory(section: Section, settings: Settings) -> None:
    """Processes that decode pictures hand them over in shared memory, of which containers often have 64 MB."""
    if all(model.workers == 0 for model in settings.models.values()) or not _SHARED_MEMORY.is_dir():
        return
    free = room_at(_SHARED_MEMORY).n_bytes
    if free < _LITTLE_SHARED:
        section.odd(
            f"{_SHARED_MEMORY} has {free / 1e6:.0f} MB free: processes that decode pictures may end in a bus error",
            "give the container more (--shm-size=1g), or models: workers: 0",
        )
