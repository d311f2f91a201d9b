"""SAEs that other projects' packages have trained and saved: opened here, they give the codes that they give there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_for_tests import relative_error
from peers_for_tests import run_peer
from sae_variants import planted
from safetensors.torch import load_file, save_file

from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.unsaid import Unsaid

SCRIPT = Path(__file__).with_name("made_by_peers.py")
# Of overcomplete's state dicts, what they do not say.
SAID = {
    "SAE": Unsaid(code="relu"),
    "SAE-l1": Unsaid(code="relu", rows="l1"),
    "SAE-max_l2": Unsaid(code="relu", rows="max_l2"),
    "TopKSAE": Unsaid(code="topk", k=5),
    "TopKSAE-tied": Unsaid(code="topk", k=5),
    "TopKSAE-untied": Unsaid(code="topk", k=5),
    "BatchTopKSAE": Unsaid(code="batchtopk"),
    "JumpSAE": Unsaid(),
    "QSAE": Unsaid(),
    "QSAE-hard": Unsaid(code="quantized-hard"),
    "RATopKSAE": Unsaid(code="topk", k=5, delta=0.5),
    "RAJumpSAE": Unsaid(delta=0.5),
    "MpSAE": Unsaid(code="matching-pursuit", k=5),
    "OMPSAE": Unsaid(code="orthogonal-matching-pursuit", k=5),
}
CASES = [
    *(
        ("dictionary_learning", name)
        for name in (
            *("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "BatchTopKSAE-never-learned"),
            *("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder", "GatedAutoEncoder"),
        )
    ),
    ("saev", "relu"),
    *(("overcomplete", name) for name in SAID),
    *(("sparsify", name) for name in ("topk", "expanded", "transcoder", "skip")),
    *(("visaebench", name) for name in ("topk", "batchtopk", "running", "jumprelu")),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of what a peer has made, which is made when it is first asked for."""
    folders = {}

    def folder_of(peer):
        if peer not in folders:
            folders[peer] = root = tmp_path_factory.mktemp(peer)
            save_file({"inputs": planted(500, seed=1, scale=3.0, shift=1.0).contiguous()}, root / "inputs.safetensors")
            run_peer(peer, SCRIPT, peer, root)
        return folders[peer]

    return folder_of


def said_of(made, peer, name):
    unsaid = SAID[name] if peer == "overcomplete" else Unsaid()
    if name == "BatchTopKSAE" and peer == "overcomplete":
        unsaid = replace(unsaid, threshold=json.loads((made(peer) / "said.json").read_text())["threshold"])
    return unsaid


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "name"), CASES)
def test_codes_are_those_of_the_project(peer, name, made):
    root = made(peer)
    inputs = load_file(root / "inputs.safetensors")["inputs"]
    found = load_file(root / "found" / f"{name}.safetensors")
    given, kind, _ = read_foreign(root / "made" / name, said_of(made, peer, name))
    assert kind == peer
    assert int((found["codes"] != 0).sum()) > 500
    assert relative_error(given.sae.encode(inputs), found["codes"]) < 1e-5
    assert torch.equal(given.sae.sparse_codes(inputs).dense() != 0, found["codes"] != 0)
    assert relative_error(given.sae(inputs), found["output"]) < 1e-5
    assert relative_error(given.sae.decode(given.sae.sparse_codes(inputs), like=inputs), found["output"]) < 1e-5
