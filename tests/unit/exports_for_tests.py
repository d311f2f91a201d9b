"""Runs where another project's package can be imported: python exports_for_tests.py PEER ROOT.

Opens every SAE of visae that lies in a folder of ROOT/PEER, as the package's documentation says, and writes beside it
what the package computes from the activations in ROOT/inputs.safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def of_saelens(folder):
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    return sae.encode, sae


def of_dictionary_learning(folder):
    from dictionary_learning.utils import load_dictionary

    sae, _ = load_dictionary(str(folder), "cpu")
    return sae.encode, sae


def of_visaebench(folder):
    from visae.vision.timm_import import import_timm

    import_timm()
    import visaebench

    sae = visaebench.load_sae(str(folder), device="cpu")
    if sae.config["inputs"] == "raw":
        return sae.encode, lambda x: sae.decode(sae.encode(x))
    mean, std = torch.tensor(sae.config["mean"]), sae.config["std"]
    return lambda x: sae.encode((x - mean) / std), lambda x: sae.decode(sae.encode((x - mean) / std)) * std + mean


OPEN = {"saelens": of_saelens, "dictionary_learning": of_dictionary_learning, "visaebench": of_visaebench}

if __name__ == "__main__":
    torch.set_num_threads(1)
    peer, root = sys.argv[1], Path(sys.argv[2])
    inputs = load_file(root / "inputs.safetensors")["inputs"]
    for folder in sorted((root / peer).iterdir()):
        encode, reconstruct = OPEN[peer](folder)
        with torch.no_grad():
            found = {"codes": encode(inputs).contiguous(), "output": reconstruct(inputs).contiguous()}
        save_file(found, root / f"found-{peer}-{folder.name}.safetensors")
