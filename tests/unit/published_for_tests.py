"""SAEs in every format that is read, written here by their formulas: for tests that run over all of them.

Adding a format is one entry in `WRITTEN`. What real packages write is compared with in test_published_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from visae.sae.foreign.unsaid import Unsaid

D_MODEL, WIDTH = 8, 40
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Written:
    """A format as one of its projects writes it.

    Parameters
    ----------
    tensors
        Of d_model and width, from a matrix of decoder rows (width, d_model) and a generator.
    said
        Settings, of d_model and width.
    codes
        What the project computes of x (n, d_model) from the tensors.
    encoder, decoder, bias
        Names of these tensors.
    file
        Of the weights.
    settings_in
        `file`, `header` (a line of JSON before the weights) or the name of a JSON file beside them.
    """

    tensors: Callable[[Tensor, torch.Generator], Tensors]
    said: Callable[[int, int], dict[str, Any]]
    codes: Callable[[Tensors, Tensor], Tensor]
    encoder: str = "W_enc"
    decoder: str = "W_dec"
    bias: str = "b_enc"
    file: str = "sae.pt"
    settings_in: str = "config.json"
    unsaid: Unsaid = field(default_factory=Unsaid)

    def make(self, d_model: int = D_MODEL, width: int = WIDTH, seed: int = 3) -> Tensors:
        """Random tensors, in which encoder and decoder rows are alike as training leaves them."""
        generator = torch.Generator().manual_seed(seed)
        rows = normalize(torch.randn(width, d_model, generator=generator))
        return self.tensors(rows, generator)

    def write(self, folder: Path, tensors: Tensors | None = None, **changed: Any) -> Path:
        """Write a folder as the project does; `changed` settings differ from the project's own."""
        tensors = self.make() if tensors is None else tensors
        folder.mkdir(parents=True, exist_ok=True)
        width, d_model = WIDTH, D_MODEL
        n_rows = tensors.get(self.bias, torch.zeros(0)).numel()
        if n_rows and (found := tensors.get(self.encoder, torch.zeros(0)).numel() // n_rows):
            width, d_model = n_rows, found
        said = {**self.said(d_model, width), **changed}
        path = folder / self.file
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if self.settings_in == "header":
            with path.open("wb") as file:
                file.write((json.dumps(said) + "\n").encode())
                torch.save(tensors, file)
            return folder
        if self.settings_in == "file":
            torch.save({"cfg": said, "state_dict": tensors}, path)
            return folder
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
        if said:
            (folder / self.settings_in).write_text(json.dumps(said))
        return folder


def top(pre: Tensor, k: int) -> Tensor:
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())


def standardized(x: Tensor) -> Tensor:
    """A layer norm without weights, as ViT-Prisma, SAELens and ViSAE write it."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.std(-1, keepdim=True) + 1e-5)


def near(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Encoder rows like decoder rows, not the same."""
    return 1.3 * rows + 0.1 * torch.randn(rows.shape, generator=generator)


def matrices(rows: Tensor, generator: torch.Generator, **more: Tensor) -> Tensors:
    """W_enc (d, h), W_dec (h, d), b_enc, b_dec."""
    width, d_model = rows.shape
    made = {"W_enc": near(rows, generator).T, "W_dec": rows, "b_enc": torch.randn(width, generator=generator) / 4}
    return made | {"b_dec": torch.randn(d_model, generator=generator)} | more


def gates(rows: Tensor, generator: torch.Generator) -> Tensors:
    width = len(rows)
    made = matrices(rows, generator)
    own = {name: torch.randn(width, generator=generator) / 4 for name in ("b_gate", "r_mag", "b_mag")}
    return made | own


def linear(rows: Tensor, generator: torch.Generator, **more: Tensor) -> Tensors:
    """encoder (h, d), decoder (d, h) with a bias of the encoder, as dictionary_learning has them."""
    made = {"encoder.weight": near(rows, generator), "decoder.weight": rows.T}
    return made | {"encoder.bias": torch.randn(len(rows), generator=generator) / 4} | more


def kept(rows: Tensor, generator: torch.Generator, threshold: float) -> Tensors:
    own = {"k": torch.tensor(4, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    return linear(rows, generator, b_dec=torch.randn(rows.shape[1], generator=generator), **own)


def trainer(kind: str, **more: Any) -> Callable[[int, int], dict[str, Any]]:
    def said(d_model: int, width: int) -> dict[str, Any]:
        sizes = {"activation_dim": d_model, "dict_size": width}
        place = {"layer": 3, "lm_name": "a-vit", "submodule_name": None}
        return {"trainer": {"dict_class": kind, **sizes, **place, **more}, "buffer": {"d_submodule": d_model}}

    return said


def pre(t: Tensors, x: Tensor, bias: str = "b_enc") -> Tensor:
    return (x - t["b_dec"]) @ t["W_enc"] + t[bias]


def pre_linear(t: Tensors, x: Tensor, off: str | None = "b_dec") -> Tensor:
    return (x if off is None else x - t[off]) @ t["encoder.weight"].T + t["encoder.bias"]


def gated(t: Tensors, x: Tensor) -> Tensor:
    projected = (x - t["b_dec"]) @ t["W_enc"]
    return (projected * t["r_mag"].exp() + t["b_mag"]).relu() * (projected + t["b_gate"] > 0)


def prisma(**changed: Any) -> Callable[[int, int], dict[str, Any]]:
    def said(d_model: int, width: int) -> dict[str, Any]:
        place = {"model_name": "open-clip:a/vit", "hook_point_layer": 9, "layer_subtype": "hook_mlp_out"}
        rule = {"architecture": "standard", "activation_fn_str": "relu", "activation_fn_kwargs": {}}
        own = {"d_in": d_model, "expansion_factor": width // d_model, "normalize_activations": "layer_norm"}
        tokens = {"cls_token_only": False, "use_patches_only": False, "_dtype": "float32", "_device": "cuda"}
        return {**place, **rule, **own, **tokens, **changed}

    return said


def overcomplete(rows: Tensor, generator: torch.Generator) -> Tensors:
    encoder = {"encoder.final_block.0.weight": near(rows, generator)}
    bias = {"encoder.final_block.0.bias": torch.randn(len(rows), generator=generator) / 4}
    return encoder | bias | {"dictionary._weights": rows, "dictionary.multiplier": torch.tensor(0.25)}


def pre_overcomplete(t: Tensors, x: Tensor) -> Tensor:
    return (x @ t["encoder.final_block.0.weight"].T + t["encoder.final_block.0.bias"]).relu()


def visaebench(rows: Tensor, generator: torch.Generator) -> Tensors:
    made = linear(rows, generator)
    return made | {"decoder.weight": rows, "decoder.bias": torch.randn(rows.shape[1], generator=generator)}


def saelens(architecture: str = "standard", **more: Any) -> Callable[[int, int], dict[str, Any]]:
    def said(d_model: int, width: int) -> dict[str, Any]:
        own = {"architecture": architecture, "d_in": d_model, "d_sae": width, "dtype": "float32", "device": "cpu"}
        plain = {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
        about = {"sae_lens_version": "6.54.12", "model_name": "a-vit", "hook_name": "blocks.3.hook_resid_post"}
        return {**own, **plain, "metadata": about, **more}

    return said


def transcoder(rows: Tensor, generator: torch.Generator) -> Tensors:
    made = matrices(rows, generator)
    return made | {
        "W_dec": torch.randn(len(rows), 5, generator=generator),
        "b_dec": torch.randn(5, generator=generator),
    }


LINEAR = {"encoder": "encoder.weight", "decoder": "decoder.weight", "bias": "encoder.bias"}
AE = {**LINEAR, "file": "ae.pt"}
FINAL = {
    "encoder": "encoder.final_block.0.weight",
    "decoder": "dictionary._weights",
    "bias": "encoder.final_block.0.bias",
    "file": "model.pt",
}
OLD = {"sparsity_coeff": 4e-4, "n_reinit_samples": 1, "ghost_grads": False, "seed": 0}
BATCHTOPK = {"cls": "BatchTopK", "params": {"key": "batch-top-k", "top_k": 4, "momentum": 0.1}}
CLIP = "openai/clip-vit-base-patch32"
LENS = {"file": "sae_weights.safetensors", "settings_in": "cfg.json"}
WRITTEN: dict[str, Written] = {
    "saev": Written(
        matrices,
        lambda d, h: {"d_vit": d, "exp_factor": h // d, **OLD},
        lambda t, x: pre(t, x).relu(),
        settings_in="header",
    ),
    "saev-5": Written(
        lambda rows, g: matrices(rows, g, **{"activation.threshold": torch.tensor(0.9)}),
        lambda d, h: {
            "schema": 5,
            "cfg": {"d_model": d, "d_sae": h, "activation": BATCHTOPK},
            "commit": "c",
            "lib": "1",
        },
        lambda t, x: (found := x @ t["W_enc"] + t["b_enc"]) * (found > t["activation.threshold"]),
        settings_in="header",
    ),
    "visaebench": Written(
        visaebench,
        lambda d, h: {"input_dim": d, "hidden_dim": h, "activation": "batchtopk", "k": 4, "threshold": 0.9},
        lambda t, x: (found := pre_linear(t, x, None)) * (found >= 0.9),
        **LINEAR,
    ),
    "overcomplete-topk": Written(
        overcomplete,
        lambda d, h: {},
        lambda t, x: top(pre_overcomplete(t, x), 4),
        unsaid=Unsaid(code="topk", k=4),
        **FINAL,
    ),
    "overcomplete-jump": Written(
        lambda rows, g: overcomplete(rows, g) | {"thresholds": torch.rand(len(rows), generator=g) - 1},
        lambda d, h: {},
        lambda t, x: (found := pre_overcomplete(t, x)) * (found >= t["thresholds"].exp()),
        **FINAL,
    ),
    "dictionary_learning-topk": Written(
        lambda rows, g: kept(rows, g, -1.0),
        trainer("AutoEncoderTopK", k=4),
        lambda t, x: top(pre_linear(t, x), 4),
        **AE,
    ),
    "dictionary_learning-matryoshka": Written(
        lambda rows, g: matrices(
            rows,
            g,
            k=torch.tensor(4, dtype=torch.int32),
            threshold=torch.tensor(0.9),
            group_sizes=torch.tensor([len(rows) // 4, len(rows) - len(rows) // 4]),
        ),
        trainer("MatryoshkaBatchTopKSAE", k=4),
        lambda t, x: (found := pre(t, x)) * (found > t["threshold"]),
        file="ae.pt",
    ),
    "dictionary_learning-jumprelu": Written(
        lambda rows, g: matrices(rows, g, threshold=torch.rand(len(rows), generator=g)),
        trainer("JumpReluAutoEncoder"),
        lambda t, x: (found := x @ t["W_enc"] + t["b_enc"]) * (found > t["threshold"]),
        file="ae.pt",
    ),
    "sae-for-vlm": Written(
        lambda rows, g: kept(rows, g, 0.9),
        trainer("BatchTopKSAE", k=4, lm_name="openai/clip-vit-large-patch14-336", layer=22),
        lambda t, x: (found := pre_linear(t, x)) * (found > t["threshold"]),
        **AE,
    ),
    "vision-interp": Written(
        lambda rows, g: kept(rows, g, -1.0),
        trainer("AutoEncoderTopK", k=4),
        lambda t, x: top(pre_linear(t, x), 4),
        unsaid=Unsaid(as_="vision-interp"),
        **AE,
    ),
    "ViSAE": Written(
        lambda rows, g: kept(rows, g, 0.9),
        trainer("BatchTopKSAE", k=4, lm_name=CLIP, layer="7"),
        lambda t, x: (found := pre_linear(t, standardized(x))) * (found > t["threshold"]),
        **AE,
    ),
    "prisma": Written(
        matrices, prisma(), lambda t, x: pre(t, standardized(x)).relu(), settings_in="file", file="n_images_5.pt"
    ),
    "prisma-topk": Written(
        matrices,
        prisma(activation_fn_str="topk", activation_fn_kwargs={"k": 4}, cls_token_only=True),
        lambda t, x: top(pre(t, standardized(x)), 4),
        file="weights.pt",
    ),
    "prisma-gated": Written(
        gates,
        prisma(architecture="gated", normalize_activations="none"),
        gated,
        file="weights.pt",
        bias="b_gate",
    ),
    "patchsae": Written(
        matrices,
        lambda d, h: {"d_in": d, "block_layer": 10, "module_name": "resid", "model_name": CLIP, "class_token": False},
        lambda t, x: pre(t, x).relu(),
        settings_in="file",
    ),
    "sparsify": Written(
        lambda rows, g: {
            "encoder.weight": near(rows, g),
            "encoder.bias": torch.randn(len(rows), generator=g) / 4,
            "W_dec": rows,
            "b_dec": torch.randn(rows.shape[1], generator=g),
        },
        lambda d, h: {"activation": "topk", "num_latents": h, "k": 4, "d_in": d, "transcode": False},
        lambda t, x: top(pre_linear(t, x), 4),
        encoder="encoder.weight",
        bias="encoder.bias",
        file="sae.safetensors",
        settings_in="cfg.json",
    ),
    "saelens": Written(matrices, saelens(), lambda t, x: pre(t, x).relu(), **LENS),
    "saelens-layer-norm": Written(
        matrices, saelens(normalize_activations="layer_norm"), lambda t, x: pre(t, standardized(x)).relu(), **LENS
    ),
    "saelens-transcoder": Written(
        transcoder,
        saelens("transcoder", d_out=5, apply_b_dec_to_input=False),
        lambda t, x: (x @ t["W_enc"] + t["b_enc"]).relu(),
        **LENS,
    ),
    "saelens-jumprelu-transcoder": Written(
        lambda rows, g: transcoder(rows, g) | {"threshold": torch.rand(len(rows), generator=g)},
        saelens("jumprelu_transcoder", d_out=5, apply_b_dec_to_input=False),
        lambda t, x: (found := x @ t["W_enc"] + t["b_enc"]) * (found > t["threshold"]),
        **LENS,
    ),
}
