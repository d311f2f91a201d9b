"""Runs beside a peer's package: python made_by_peers.py PEER FOLDER.

Trains an SAE of each of its classes for some steps on FOLDER/inputs.safetensors, saves it as the peer does in
FOLDER/made/NAME, and what the peer computes from the inputs with what it opens again in FOLDER/found.
"""

import importlib.util
import json
import sys
import types
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

D_MODEL, WIDTH, STEPS, BATCH = 16, 64, 60, 128


def write_found(root, name, codes, output):
    (root / "found").mkdir(exist_ok=True)
    found = {"codes": codes.detach().contiguous(), "output": output.detach().contiguous()}
    save_file(found, root / "found" / f"{name}.safetensors")


def without_its_init(name):
    """A package whose own __init__ imports what only language models and plots need; its modules are the real ones."""
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package


def batches(inputs):
    generator = torch.Generator().manual_seed(0)
    while True:
        yield inputs[torch.randint(len(inputs), (BATCH,), generator=generator)]


def dictionary_learning(root, inputs):
    from dictionary_learning.dictionary import AutoEncoderNew
    from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, matryoshka_batch_top_k, standard, top_k
    from dictionary_learning.training import trainSAE
    from dictionary_learning.utils import load_dictionary

    where = {"layer": 7, "lm_name": "a-vit", "submodule_name": "blocks.7", "device": "cpu"}
    shared = {"activation_dim": D_MODEL, "dict_size": WIDTH, "warmup_steps": 2, "steps": STEPS, **where}
    kept = {"k": 5, "lr": 1e-2}
    young = {"threshold_start_step": 10, "threshold_beta": 0.9}
    groups = {"group_fractions": [0.25, 0.75]}
    trainers = {
        "AutoEncoder": (standard.StandardTrainer, {"sparsity_warmup_steps": 5, "lr": 1e-2, "l1_penalty": 0.05}),
        "AutoEncoderTopK": (top_k.TopKTrainer, {**kept, **young}),
        "BatchTopKSAE": (batch_top_k.BatchTopKTrainer, {**kept, **young}),
        "BatchTopKSAE-never-learned": (batch_top_k.BatchTopKTrainer, kept),
        "MatryoshkaBatchTopKSAE": (matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer, {**kept, **young, **groups}),
        "JumpReluAutoEncoder": (jumprelu.JumpReluTrainer, {"sparsity_warmup_steps": 5, "lr": 1e-2, "bandwidth": 0.1}),
        "GatedAutoEncoder": (gdm.GatedSAETrainer, {"sparsity_warmup_steps": 5, "lr": 1e-2, "l1_penalty": 0.05}),
        "AutoEncoderNew": (
            standard.StandardTrainerAprilUpdate,
            {"sparsity_warmup_steps": 5, "lr": 1e-2, "l1_penalty": 0.05, "dict_class": AutoEncoderNew},
        ),
    }
    for name, (trainer, options) in trainers.items():
        data = islice(batches(inputs), STEPS)
        where = {"save_dir": str(root / "made" / name), "save_steps": [5], "device": "cpu"}
        trainSAE(data, [{"trainer": trainer, **shared, **options}], STEPS, **where)
        folder = root / "made" / name / "trainer_0"
        if name == "AutoEncoderNew":
            # Its trainer writes the name of another class.
            config = json.loads((folder / "config.json").read_text())
            config["trainer"]["dict_class"] = name
            (folder / "config.json").write_text(json.dumps(config))
        sae, _ = load_dictionary(str(folder), "cpu")
        write_found(root, name, sae.encode(inputs), sae(inputs))


def saev(root, inputs):
    without_its_init("saev")
    from saev import config, nn

    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=D_MODEL, exp_factor=WIDTH // D_MODEL))
    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
    for batch in islice(batches(inputs), STEPS):
        sae.normalize_w_dec()
        _, _, losses = sae(batch)
        optimizer.zero_grad()
        losses.loss.backward()
        sae.remove_parallel_grads()
        optimizer.step()
    nn.dump(str(root / "made" / "relu" / "sae.pt"), sae)
    output, codes, _ = nn.load(str(root / "made" / "relu" / "sae.pt"))(inputs)
    write_found(root, "relu", codes, output)


def overcomplete(root, inputs):
    without_its_init("overcomplete")
    from overcomplete import sae as classes

    points = inputs[:24].clone()
    multiplied = {"dictionary_params": {"use_multiplier": True}}
    made = {
        "SAE": classes.SAE(D_MODEL, WIDTH, **multiplied),
        "SAE-l1": classes.SAE(D_MODEL, WIDTH, dictionary_params={"normalization": "l1"}),
        "SAE-max_l2": classes.SAE(D_MODEL, WIDTH, dictionary_params={"normalization": "max_l2"}),
        "TopKSAE": classes.TopKSAE(D_MODEL, WIDTH, top_k=5),
        "TopKSAE-tied": classes.TopKSAE(D_MODEL, WIDTH, top_k=5).tied(bias=True),
        "TopKSAE-untied": classes.TopKSAE(D_MODEL, WIDTH, top_k=5).untied(bias=True),
        "BatchTopKSAE": classes.BatchTopKSAE(D_MODEL, WIDTH, top_k=5 * BATCH),
        "JumpSAE": classes.JumpSAE(D_MODEL, WIDTH, bandwidth=0.1),
        "QSAE": classes.QSAE(D_MODEL, WIDTH, q=4),
        "QSAE-hard": classes.QSAE(D_MODEL, WIDTH, q=4, hard=True),
        "RATopKSAE": classes.RATopKSAE(D_MODEL, WIDTH, points, top_k=5, delta=0.5),
        "RAJumpSAE": classes.RAJumpSAE(D_MODEL, WIDTH, points, delta=0.5),
        "MpSAE": classes.MpSAE(D_MODEL, WIDTH, k=5),
        "OMPSAE": classes.OMPSAE(D_MODEL, WIDTH, k=5),
        "deep": classes.SAE(D_MODEL, WIDTH, encoder_module="mlp_ln_3"),
    }
    said = {}
    for name, sae in made.items():
        optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
        for batch in islice(batches(inputs), STEPS):
            _, codes, output = sae(batch)
            loss = (output - batch).square().mean() + 1e-3 * codes.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        (root / "made" / name).mkdir(parents=True)
        # Saved in training mode, as a loop does that ends with the last step.
        torch.save(sae.state_dict(), root / "made" / name / "weights.pt")
        sae.eval()
        _, codes, output = sae(inputs)
        write_found(root, name, codes, output)
        if name == "BatchTopKSAE":
            said["threshold"] = float(sae.running_threshold)
    (root / "said.json").write_text(json.dumps(said))


def sparsify(root, inputs):
    from visae.vision.timm_import import import_timm

    import_timm()
    from transformers import PreTrainedModel  # noqa: F401

    without_its_init("sparsify")
    # Only what counts a language model's widths asks for it; transformers must not find it.
    sys.modules["accelerate"] = types.ModuleType("accelerate")
    sys.modules["accelerate.utils"] = types.ModuleType("accelerate.utils")
    sys.modules["accelerate.utils"].send_to_device = None
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    made = {
        "topk": SparseCoderConfig(num_latents=WIDTH, k=5),
        "expanded": SparseCoderConfig(expansion_factor=WIDTH // D_MODEL, k=5, normalize_decoder=False),
        "transcoder": SparseCoderConfig(num_latents=WIDTH, k=5, transcode=True),
        "skip": SparseCoderConfig(num_latents=WIDTH, k=5, transcode=True, skip_connection=True),
        "groupmax": SparseCoderConfig(num_latents=WIDTH, k=4, activation="groupmax"),
    }
    for name, config in made.items():
        sae = SparseCoder(D_MODEL, config)
        optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
        for batch in islice(batches(inputs), STEPS):
            target = batch.flip(1) if config.transcode else None
            loss = sae(batch, target).fvu
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        folder = root / "made" / name / "layers.3.mlp"
        sae.save_to_disk(folder)
        sae = SparseCoder.load_from_disk(folder)
        values, latents, _ = sae.encode(inputs)
        codes = torch.zeros(len(inputs), WIDTH).scatter(1, latents, values)
        write_found(root, name, codes, sae(inputs).sae_out)


def visaebench(root, inputs):
    from visae.vision.timm_import import import_timm

    import_timm()
    from visaebench import load_sae

    # visaebench trains none: its files are made of weights from elsewhere, here random ones.
    generator = torch.Generator().manual_seed(3)
    state = {
        "encoder.weight": torch.randn(WIDTH, D_MODEL, generator=generator) / 4,
        "encoder.bias": torch.randn(WIDTH, generator=generator) / 4,
        "decoder.weight": torch.randn(WIDTH, D_MODEL, generator=generator),
    }
    sizes = {"input_dim": D_MODEL, "hidden_dim": WIDTH}
    bias = {"decoder.bias": torch.randn(D_MODEL, generator=generator)}
    own = {"jump_thresholds": torch.rand(WIDTH, generator=generator) * 3}
    made = {
        "topk": ({}, {**sizes, "activation": "topk", "k": 5}),
        "batchtopk": (bias, {**sizes, "activation": "batchtopk", "k": 5, "threshold": 1.25}),
        "running": ({"_running_threshold": torch.tensor(1.25)}, {**sizes, "sae_type": "BatchTopK", "k": 5}),
        "jumprelu": (own, {"activation": "jumprelu"}),
    }
    for name, (more, config) in made.items():
        (root / "made" / name).mkdir(parents=True)
        torch.save(state | more, root / "made" / name / "sae.pt")
        (root / "made" / name / "config.json").write_text(json.dumps(config))
        sae = load_sae(str(root / "made" / name), device="cpu")
        codes = sae.encode(inputs)
        write_found(root, name, codes, sae.decode(codes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = load_file(Path(sys.argv[2]) / "inputs.safetensors")["inputs"]
    globals()[sys.argv[1]](Path(sys.argv[2]), given)
