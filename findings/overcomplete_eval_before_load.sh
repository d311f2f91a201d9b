#!/usr/bin/env bash
# One would guess: a PyTorch module computes the same whether it is put in eval mode before or after load_state_dict, and
# calling eval() once more changes nothing or repairs it.
#
# What happens: overcomplete's SAEs keep the dictionary that eval() found as a plain attribute, and use that. Weights that
# are loaded afterwards change the codes and not the dictionary: what is decoded is of the random rows of before, with no
# error or warning, and neither another eval() nor get_dictionary() gives the loaded one. Of matching pursuit, whose codes
# come of the dictionary, the codes are those of an untrained SAE too.
#
# Why it matters: sae.eval() before load_state_dict is how many loading functions are written. L0 and the exemplars of
# latents come out right, and reconstruction, concept directions and steering are those of chance. An error above that of
# the mean looks like a wrong layer or a wrong normalization.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/environment"
"$work/environment/bin/pip" install --quiet overcomplete==0.3.0 torch==2.13.0 matplotlib==3.8.4
cd "$work"
cat > try.py <<'PY'
import importlib.metadata
import warnings

import torch
from overcomplete.sae import TopKSAE
from overcomplete.sae.mp_sae import MpSAE

print({name: importlib.metadata.version(name) for name in ("overcomplete", "torch")})
torch.manual_seed(0)
directions = torch.nn.functional.normalize(torch.randn(48, 32), dim=1)
x = (torch.rand(4000, 48) * (torch.rand(4000, 48) < 0.1)) @ directions
error_of_mean = float((x - x.mean(0)).square().sum())


def trained(made):
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    for step in range(400):
        batch = x[torch.randint(len(x), (256,))]
        loss = (made(batch)[2] - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


@torch.no_grad()
def measured(sae):
    _, codes, output = sae(x)
    return codes, float((output - x).square().sum()) / error_of_mean


for name, make in {"TopKSAE": lambda: TopKSAE(32, 64, top_k=5), "MpSAE": lambda: MpSAE(32, 64, k=5)}.items():
    state = trained(sae := make()).state_dict()
    codes, error = measured(sae)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        after = make()
        after.load_state_dict(state)
        after.eval()
        before = make().eval()
        before.load_state_dict(state)
        again = make().eval()
        again.load_state_dict(state)
        again.eval()
    same = {key: torch.equal(value, before.state_dict()[key]) for key, value in state.items()}
    (codes_after, error_after), (codes_before, error_before) = measured(after), measured(before)
    _, error_again = measured(again)
    l0 = [round(float((found != 0).sum(1).float().mean()), 2) for found in (codes, codes_after, codes_before)]
    print(f"{name}: warnings: {len(told)}; the state dict is as it was saved: {all(same.values())}")
    print(f"  normalized error as trained, loaded and then eval(), eval() and then loaded, eval() again: "
          f"{error:.3f}, {error_after:.3f}, {error_before:.3f}, {error_again:.3f}; L0: {l0}")
    same_codes = torch.allclose(codes, codes_before, atol=1e-5)
    print(f"  codes are the same if eval() came first: {same_codes}")
    assert not told and all(same.values()) and abs(error_after - error) < 1e-3, "not as described"
    assert error_before > 5 * error and error_again > 5 * error, "what is loaded after eval() is used now"
    assert same_codes == (name == "TopKSAE"), "not as described"
print("As described: the dictionary is that of before the weights were loaded.")
PY
OMP_NUM_THREADS=1 environment/bin/python try.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
