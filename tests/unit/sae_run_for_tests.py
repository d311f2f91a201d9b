"""A small training run in a process of its own, for tests that kill it: python sae_run_for_tests.py FOLDER STEPS."""

import sys
from pathlib import Path

import torch

from visae.config.settings import TopKSettings
from visae.sae.trainer import train


def settings(steps):
    return TopKSettings(
        variant="topk",
        k=3,
        expansion=4,
        steps=steps,
        batch_size=64,
        checkpoint_every=5,
        log_every=1,
        dead_after_tokens=512,
        auxk=8,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    print("ready", flush=True)
    train(settings(int(sys.argv[2])), [folder.parent / "store/manifest.json"], folder / "out", folder / "work", "cpu")
