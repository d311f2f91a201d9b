"""Runs beside a peer's package: python published_for_tests.py PEER FOLDER; trains an SAE on FOLDER/inputs.safetensors.

The peer saves it in FOLDER, as it does for its users.
"""

import sys
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from made_by_peers import batches, without_its_init

K, STEPS = 6, 200


def dictionary_learning(root: Path, inputs: torch.Tensor) -> None:
    from dictionary_learning.trainers.top_k import TopKTrainer
    from dictionary_learning.training import trainSAE

    d_model = inputs.shape[1]
    where = {"layer": 10, "lm_name": "vit-tiny", "submodule_name": "blocks.10", "device": "cpu"}
    sizes = {"activation_dim": d_model, "dict_size": 2 * d_model, "k": K, "lr": 3e-3, "warmup_steps": 2}
    trainer = {"trainer": TopKTrainer, "steps": STEPS, **sizes, **where}
    trainSAE(islice(batches(inputs), STEPS), [trainer], STEPS, save_dir=str(root), device="cpu")


def overcomplete(root: Path, inputs: torch.Tensor) -> None:
    without_its_init("overcomplete")
    from overcomplete.sae import TopKSAE

    sae = TopKSAE(inputs.shape[1], 2 * inputs.shape[1], top_k=K)
    optimizer = torch.optim.Adam(sae.parameters(), lr=3e-3)
    for batch in islice(batches(inputs), STEPS):
        _, _, output = sae(batch)
        optimizer.zero_grad()
        (output - batch).square().mean().backward()
        optimizer.step()
    torch.save(sae.state_dict(), root / "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(sys.argv[2])
    globals()[sys.argv[1]](folder, load_file(folder / "inputs.safetensors")["inputs"])
