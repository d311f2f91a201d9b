"""Runs in an environment with sae-lens: python saelens_for_tests.py FOLDER FACTOR.

Loads every SAE in FOLDER/exported, and makes and saves one of each architecture in FOLDER/made, and in FOLDER/scaled as
checkpoints of the middle of training leave them; beside each it writes what SAELens computes from
FOLDER/inputs.safetensors, for the last after folding the scaling as it does at the end of training. FOLDER/trained has
what it saves of an SAE of each training class after some steps, and FOLDER/across its transcoders.
"""

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig, GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
)
from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.transcoder import (
    JumpReLUSkipTranscoder,
    JumpReLUSkipTranscoderConfig,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    Transcoder,
    TranscoderConfig,
)
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file, save_file

D_MODEL, WIDTH = 16, 64


def made(**more):
    """SAEs of each architecture by name, with and without the decoder's bias taken off the input."""
    shared = {"d_in": D_MODEL, "d_sae": WIDTH, **more}
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
            nested = MatryoshkaBatchTopKTrainingSAEConfig(**options, matryoshka_widths=[WIDTH // 4, WIDTH])
            yield f"matryoshka{middle}{end}", MatryoshkaBatchTopKTrainingSAE(nested)


def transcoders(**more):
    """Transcoders of each architecture by name."""
    kinds = {
        "transcoder": (Transcoder, TranscoderConfig),
        "skip_transcoder": (SkipTranscoder, SkipTranscoderConfig),
        "jumprelu_transcoder": (JumpReLUTranscoder, JumpReLUTranscoderConfig),
        "jumprelu_skip_transcoder": (JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig),
    }
    shared = {"d_in": D_MODEL, "d_sae": WIDTH, "d_out": 10, "apply_b_dec_to_input": False, **more}
    for name, (kind, config) in kinds.items():
        yield name, kind(config(**shared))


def trained(inputs, folder):
    """Train an SAE of each training class for some steps, and open again what it saves of it."""
    shared = {"d_in": D_MODEL, "d_sae": WIDTH}
    kept = {**shared, "k": 5}
    kinds = {
        "standard": (StandardTrainingSAE, StandardTrainingSAEConfig(**shared)),
        "gated": (GatedTrainingSAE, GatedTrainingSAEConfig(**shared)),
        "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig(**shared)),
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig(**kept)),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig(**kept)),
        "matryoshka": (
            MatryoshkaBatchTopKTrainingSAE,
            MatryoshkaBatchTopKTrainingSAEConfig(**kept, matryoshka_widths=[WIDTH // 4, WIDTH]),
        ),
        "layer_norm": (TopKTrainingSAE, TopKTrainingSAEConfig(**kept, normalize_activations="layer_norm")),
    }
    for name, (kind, config) in kinds.items():
        sae = kind(config)
        optimizer = torch.optim.Adam(sae.parameters(), lr=5e-3)
        weights = {key: getattr(value, "value", value) for key, value in sae.get_coefficients().items()}
        for step in range(60):
            batch = inputs[step % 4 :: 4]
            loss = sae.training_forward_pass(TrainStepInput(batch, weights, None, step, is_logging_step=False)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        sae.save_inference_model(folder / name)
        write_found(SAE.load_from_disk(folder / name), inputs, folder / name)


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


def after_training(sae, folder):
    """What SAELens takes for an SAE that is trained: of BatchTopK the JumpReLU that it saves of it."""
    if not isinstance(sae, BatchTopKTrainingSAE):
        return sae
    sae.save_inference_model(folder)
    return SAE.load_from_disk(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, factor = Path(sys.argv[1]), float(sys.argv[2])
    inputs = load_file(root / "inputs.safetensors")["inputs"]
    for folder in sorted((root / "exported").iterdir()):
        write_found(SAE.load_from_disk(folder), inputs, folder)
    for number, (name, sae) in enumerate(made()):
        randomized(sae, number)
        sae.save_model(root / "made" / name)
        write_found(after_training(sae, root / "inference" / name), inputs, root / "made" / name)
    for number, (name, sae) in enumerate(made(normalize_activations="expected_average_only_in")):
        folder = root / "scaled" / name
        randomized(sae, number)
        sae.save_model(folder)
        ActivationScaler(factor).save(str(folder / "activation_scaler.json"))
        sae.fold_activation_norm_scaling_factor(factor)
        write_found(after_training(sae, root / "inference-scaled" / name), inputs, folder)
    for number, (name, sae) in enumerate(made(normalize_activations="layer_norm")):
        randomized(sae, number)
        sae.save_model(root / "standardized" / name)
        write_found(after_training(sae, root / "inference-standardized" / name), inputs, root / "standardized" / name)
    for end, more in (("", {}), ("-layer_norm", {"normalize_activations": "layer_norm"})):
        for number, (name, sae) in enumerate(transcoders(**more)):
            randomized(sae, number)
            sae.save_model(root / "across" / f"{name}{end}")
            write_found(sae, inputs, root / "across" / f"{name}{end}")
    trained(inputs, root / "trained")
