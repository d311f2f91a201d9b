"""Runs in an environment with sae-lens: python saelens_for_tests.py FOLDER.

Loads every SAE in FOLDER/exported, and makes and saves one of each architecture in FOLDER/made; beside each it writes
what SAELens computes from FOLDER/inputs.safetensors.
"""

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from safetensors.torch import load_file, save_file

D_MODEL, WIDTH = 16, 64


def made():
    """SAEs of each architecture by name, with and without the decoder's bias taken off the input."""
    shared = {"d_in": D_MODEL, "d_sae": WIDTH}
    for off in (True, False):
        end = "" if off else "-plain"
        both = {**shared, "apply_b_dec_to_input": off}
        yield f"standard{end}", StandardSAE(StandardSAEConfig(**both))
        yield f"jumprelu{end}", JumpReLUSAE(JumpReLUSAEConfig(**both))
        yield f"gated{end}", GatedSAE(GatedSAEConfig(**both))
        for rescale in (True, False):
            options = {**both, "k": 4, "rescale_acts_by_decoder_norm": rescale}
            middle = "-rescaled" if rescale else ""
            yield f"topk{middle}{end}", TopKSAE(TopKSAEConfig(**options))
            yield f"batchtopk{middle}{end}", BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**options))


def randomized(sae, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            if name == "threshold":
                parameter.abs_()
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold = torch.tensor(1.25, dtype=torch.double)


def write_found(sae, inputs, folder):
    with torch.no_grad():
        found = {"codes": sae.encode(inputs).contiguous(), "output": sae(inputs).contiguous()}
    save_file(found, folder / "found.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    inputs = load_file(root / "inputs.safetensors")["inputs"]
    for folder in sorted((root / "exported").iterdir()):
        write_found(SAE.load_from_disk(folder), inputs, folder)
    for number, (name, sae) in enumerate(made()):
        folder = root / "made" / name
        randomized(sae, number)
        sae.save_model(folder)
        if isinstance(sae, BatchTopKTrainingSAE):
            # What it does after training, SAELens says by the JumpReLU that it saves of it.
            sae.save_inference_model(root / "inference" / name)
            sae = SAE.load_from_disk(root / "inference" / name)  # noqa: PLW2901
        write_found(sae, inputs, folder)
