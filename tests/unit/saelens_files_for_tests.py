"""Files as SAELens of several ages writes them, and what it computes from them."""

import json

import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

D_IN, D_SAE = 8, 40
# What sae-lens 5.11.0 writes of an SAE, whatever its code rule.
OLD = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "cuda",
    "model_name": "a-vit",
    "hook_name": "blocks.3.hook_resid_post",
    "hook_layer": 3,
    "hook_head_index": None,
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "sae_lens_training_version": "5.11.0",
    "prepend_bos": True,
    "dataset_path": "pictures",
    "dataset_trust_remote_code": True,
    "context_size": 128,
    "normalize_activations": "none",
    "neuronpedia_id": None,
    "model_from_pretrained_kwargs": {},
    "seqpos_slice": [None],
}
NEW = {
    **{"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"},
    **{"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"},
    "metadata": {"sae_lens_version": "6.54.12", "model_name": "a-vit", "own_note": "anything"},
}


def tensors(architecture="standard", **more):
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    made = {"W_enc": drawn(D_IN, D_SAE), "W_dec": 2 * normalize(drawn(D_SAE, D_IN)), "b_dec": drawn(D_IN)}
    own = {
        "jumprelu": {"b_enc": drawn(D_SAE), "threshold": drawn(D_SAE).abs()},
        "gated": {"b_gate": drawn(D_SAE), "r_mag": drawn(D_SAE) / 4, "b_mag": drawn(D_SAE)},
        "batchtopk": {"b_enc": drawn(D_SAE), "topk_threshold": torch.tensor(1.5)},
    }
    return made | own.get(architecture, {"b_enc": drawn(D_SAE)}) | more


def written(folder, config, weights):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")
    return folder


def inputs():
    return torch.randn(200, D_IN, generator=torch.Generator().manual_seed(5)) * 3 + 1


def pre_activations(weights, x, bias="b_enc"):
    return (x - weights["b_dec"]) @ weights["W_enc"] + weights[bias]


def top(pre, k):
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
