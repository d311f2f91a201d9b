#!/usr/bin/env bash
# One would guess: a sparse autoencoder that SAELens 5 saved has the same codes in SAELens 6, or is refused there.
#
# What happens: activation_fn_str: tanh-relu, which SAELens 5 offers and writes into cfg.json, is not looked at by
# SAELens 6. The file is read without an error or a warning, as plain ReLU: the same latents are active, with other
# values. (topk in the same key is understood.)
#
# Why it matters: which latents are active, and so L0 and exemplars, come out right, so that nothing looks wrong; values,
# reconstructions and edits do not. Whoever compares published SAEs through the newest SAELens compares another function.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in old new; do python3 -m venv "$work/$name"; done
"$work/old/bin/pip" install --quiet torch==2.13.0 sae-lens==5.11.0 numpy==1.26.4 pyarrow==19.0.1
"$work/new/bin/pip" install --quiet torch==2.13.0 sae-lens==6.54.12
cd "$work"
cat > write.py <<'PY'
import importlib.metadata

import torch
from sae_lens.sae import SAE, SAEConfig
from safetensors.torch import save_file

print("written by", {name: importlib.metadata.version(name) for name in ("sae-lens", "torch")})
config = SAEConfig(
    **dict(architecture="standard", activation_fn_str="tanh-relu", d_in=16, d_sae=64, dtype="float32", device="cpu"),
    **dict(apply_b_dec_to_input=True, finetuning_scaling_factor=False, normalize_activations="none"),
    **dict(model_name="tiny", hook_name="blocks.0.hook_resid_post", hook_layer=0, hook_head_index=None),
    **dict(context_size=32, prepend_bos=False, dataset_path="none", dataset_trust_remote_code=False),
    sae_lens_training_version="5.11.0",
)
sae, generator = SAE(config), torch.Generator().manual_seed(0)
x = torch.randn(500, 16, generator=generator)
with torch.no_grad():
    for parameter in sae.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    sae.save_model("saved")
    save_file({"x": x, "codes": sae.encode(x).contiguous(), "output": sae(x).contiguous()}, "found.safetensors")
PY
cat > read.py <<'PY'
import importlib.metadata
import json
import warnings
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import load_file

print("read by", {name: importlib.metadata.version(name) for name in ("sae-lens", "torch")})
print("cfg.json: activation_fn_str:", json.loads(Path("saved/cfg.json").read_text())["activation_fn_str"])
before = load_file("found.safetensors")
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    sae = SAE.load_from_disk("saved")
told = [str(warning.message) for warning in told if "tanh" in str(warning.message) or "activation" in str(warning.message)]
with torch.no_grad():
    codes, output = sae.encode(before["x"]), sae(before["x"])
same_active = torch.equal(codes > 0, before["codes"] > 0)
of_codes, of_output = (float((a - b).norm() / b.norm()) for a, b in ((codes, before["codes"]), (output, before["output"])))
print("warnings of it:", told)
print("largest code before and now:", round(float(before["codes"].max()), 3), round(float(codes.max()), 3))
print("same latents active:", same_active)
print("relative difference of codes and of outputs:", round(of_codes, 3), round(of_output, 3))
assert not told and same_active and of_codes > 0.1 and of_output > 0.1, "SAELens keeps, refuses or tells of tanh-relu now"
print("As described: read without a word, with the same active latents and other values.")
PY
OMP_NUM_THREADS=1 "$work/old/bin/python" write.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
OMP_NUM_THREADS=1 "$work/new/bin/python" read.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
