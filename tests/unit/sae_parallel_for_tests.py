"""Every variant trained in one pass, by as many processes as torchrun starts: sae_parallel_for_tests.py FOLDER OUT."""

import dataclasses
import sys
from pathlib import Path

import torch
from sae_variants import CASES

from visae.sae.trainer import train_together
from visae.work import Member

# With this seed a batch has a token twice whose code is BatchTopK's smallest: one process and two must both keep both.
SHARED = {"steps": 12, "batch_size": 128, "seed": 2, "checkpoint_every": 6, "log_every": 4, "dead_after_tokens": 128}


def train_all(folder, out):
    members = [
        Member(dataclasses.replace(case.settings, **SHARED, learning_rate=1e-3), out / case.name, out / "w" / case.name)
        for case in CASES
    ]
    train_together(members, [folder / "store/manifest.json"], "cpu")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_all(Path(sys.argv[1]), Path(sys.argv[2]))
