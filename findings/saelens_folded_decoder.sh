#!/usr/bin/env bash
# One would guess: the SAE that SAELens 5 saves at the end of training reconstructs at least as well as one that it saves
# in the middle of the same run, and its cfg.json says whether activations are still to be scaled before it sees them.
#
# What happens, with normalize_activations: expected_average_only_in and everything else near its defaults: at the end the
# scaling is folded into the weights, and then saving brings the rows of W_dec back to unit norm (normalize_sae_decoder,
# on by default), which undoes the decoder's half of the fold. Codes are right, what is decoded is too small or too large
# by the root of d_in over the activations' mean norm. cfg.json says expected_average_only_in in both files, though one
# wants scaled activations and the other raw ones; only activations_store_state.safetensors, which few people publish,
# tells them apart.
#
# Why it matters: activations of vision transformers have norms far from the root of d_in, so that edits and spliced
# reconstructions made with such a finished file are off by that factor, while its codes and exemplars look right. A
# reader cannot trust cfg.json; the error on held-out activations, as it is and with W_dec divided, shows what one has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 sae-lens==5.11.0 numpy==1.26.4 pyarrow==19.0.1 wandb==0.18.7
cd "$work"
cat > run.py <<'PY'
import importlib.metadata
import json
from pathlib import Path

import torch
from datasets import Dataset
from sae_lens import SAE, LanguageModelSAERunnerConfig, SAETrainingRunner
from safetensors import safe_open
from transformer_lens import HookedTransformer, HookedTransformerConfig

D, PLACE, SCALED = 16, "blocks.0.hook_resid_post", "expected_average_only_in"
torch.manual_seed(0)
torch.set_num_threads(1)
shape = dict(n_layers=1, d_model=D, n_ctx=32, d_head=8, n_heads=2, d_vocab=50, act_fn="relu", seed=0)
model = HookedTransformer(HookedTransformerConfig(**shape))
# Activations with a mean norm of some 340, as deep layers of large vision transformers have.
model.embed.W_E.data.mul_(300)
model.pos_embed.W_pos.data.mul_(300)
generator = torch.Generator().manual_seed(0)
texts = Dataset.from_dict({"tokens": torch.randint(0, 50, (2000, 32), generator=generator).tolist()})
settings = LanguageModelSAERunnerConfig(
    **dict(model_name="tiny", hook_name=PLACE, hook_layer=0, d_in=D, expansion_factor=4, context_size=32),
    **dict(dataset_path="made here", is_dataset_tokenized=True, prepend_bos=False, normalize_activations=SCALED),
    **dict(training_tokens=300_000, train_batch_size_tokens=512, store_batch_size_prompts=8, n_batches_in_buffer=8),
    **dict(lr=3e-3, l1_coefficient=0.02, b_dec_init_method="zeros", seed=0, device="cpu", dtype="float32"),
    **dict(log_to_wandb=False, n_checkpoints=2, checkpoint_path="saved", n_eval_batches=1, eval_batch_size_prompts=2),
)
SAETrainingRunner(settings, override_dataset=texts, override_model=model).run()

tokens = torch.randint(0, 50, (64, 32), generator=generator)
x = model.run_with_cache(tokens)[1][PLACE].reshape(-1, D).detach()
factor = D**0.5 / x.norm(dim=1).mean()


def error(output):
    return float((output - x).square().sum() / (x - x.mean(0)).square().sum())


print({name: importlib.metadata.version(name) for name in ("sae-lens", "torch", "transformer-lens")})
found = {}
for path in sorted(Path("saved").rglob("cfg.json")):
    folder = path.parent
    sae = SAE.load_from_disk(str(folder))
    with safe_open(folder / "activations_store_state.safetensors", framework="pt") as state:
        keeps_factor = "estimated_norm_scaling_factor" in state.keys()
    with torch.no_grad():
        as_it_is = error(sae(x))
        on_scaled = error(sae(x * factor) / factor)
        divided = error(sae.encode(x) @ (sae.W_dec / factor) + sae.b_dec)
    row = {
        "normalize_activations": json.loads(path.read_text())["normalize_activations"],
        "state keeps the factor": keeps_factor,
        "mean row norm of W_dec": round(float(sae.W_dec.norm(dim=1).mean()), 4),
        "normalized error": round(as_it_is, 4),
        "of scaled activations": round(on_scaled, 4),
        "of raw ones, W_dec divided by the factor": round(divided, 4),
    }
    kind = "finished" if folder.name.startswith("final") else "middle"
    found[kind] = (row, as_it_is, on_scaled, divided)
    print(kind, json.dumps(row, indent=2))

(middle, _, middle_scaled, _), (finished, as_it_is, _, divided) = found["middle"], found["finished"]
assert middle["normalize_activations"] == finished["normalize_activations"] == SCALED, "cfg.json tells them apart now"
assert middle["state keeps the factor"] and not finished["state keeps the factor"]
assert abs(finished["mean row norm of W_dec"] - 1) < 1e-3, "W_dec keeps what folding gave it"
assert as_it_is > 0.5 and divided < 0.05 and middle_scaled < 0.05, "the finished SAE reconstructs as it should"
print("As described: the finished SAE reconstructs worse than the one of the middle, and cfg.json is the same.")
PY
OMP_NUM_THREADS=1 "$work/venv/bin/python" run.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
