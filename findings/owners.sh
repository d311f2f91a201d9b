#!/usr/bin/env bash
# One would guess: what CLIPVisionModel.save_pretrained of transformers writes, CLIPVisionModel of transformers reads, as
# the names of weights are what the files of a class have in common; and where no name matches, loading fails.
# What happens: 5.24.0 writes the vision tower without the prefix `vision_model.` that files of this class had before.
# 4.57.6 finds none of its weights there, draws all of them at random, warns, and returns a model: another one at each
# call. Nothing in config.json says that names have changed.
# Why it matters: activations of such a model are activations of noise. An SAE learns them without complaint, and
# transformers is often pinned to an older version where activations are extracted than where a model was tuned.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 safetensors==0.8.0
for version in 5.24.0 4.57.6; do
  "$python" -m pip install --quiet --disable-pip-version-check --target "$folder/$version" "transformers==$version"
done

cat > "$folder/common.py" <<'PYTHON'
import torch
import transformers
from transformers import CLIPVisionConfig, CLIPVisionModel

transformers.logging.set_verbosity_error()
PICTURE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def pooled(model):
    with torch.no_grad():
        return model.eval()(pixel_values=PICTURE).pooler_output[0]
PYTHON

cat > "$folder/write.py" <<'PYTHON'
from common import *
from safetensors import safe_open

torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16)
model = CLIPVisionModel(CLIPVisionConfig(**shape))
model.save_pretrained("saved")
torch.save(pooled(model), "expected.pt")
with safe_open("saved/model.safetensors", "pt") as file:
    names = sorted(file.keys())
print(f"transformers {transformers.__version__} writes {len(names)} tensors, such as {names[0]}")
back = (pooled(CLIPVisionModel.from_pretrained("saved")) - pooled(model)).abs().max()
print(f"transformers {transformers.__version__} reads them back: largest difference {back:.2g}")
assert back < 1e-6 and not any(name.startswith("vision_model.") for name in names)
PYTHON

cat > "$folder/read.py" <<'PYTHON'
from common import *

expected = torch.load("expected.pt", weights_only=True)
first, second = (pooled(CLIPVisionModel.from_pretrained("saved")) for _ in range(2))
print(f"transformers {transformers.__version__} reads the file without an error")
for name, one, other in (("from what was written", first, expected), ("between two loads of one file", first, second)):
    away = (one - other).norm() / other.norm()
    print(f"transformers {transformers.__version__}: output {name}: {100 * away:.0f} % of its norm away")
    assert away > 0.5
PYTHON

cd "$folder"
PYTHONPATH="$folder/5.24.0" "$python" write.py 2>/dev/null
PYTHONPATH="$folder/4.57.6" "$python" read.py 2>/dev/null
echo "as described: all weights of the file are left unread, and a model comes back"
