"""Taking in SAEs from other projects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, read_json, write_json
from visae.notices import Notice, as_plain, log_notices
from visae.provenance import Provenance
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.data import TrainingData
from visae.sae.foreign.own import is_own, read_own, weights_of
from visae.sae.foreign.saelens_reading import read_saelens
from visae.sae.foreign.saev import DecoderBias, read_saev
from visae.sae.metrics import Quality, quality
from visae.sae.published import METRICS, metrics_table, points
from visae.sae.sources import local_source
from visae.version import __version__


@dataclass(frozen=True)
class Source:
    """Where an SAE was taken from: file or name on the hub and its commit there, bytes, and by which version."""

    path: str
    sha256: str
    visae: str
    revision: str | None = None


def import_sae(
    source: Path,
    output: Path,
    normalization: Path | None = None,
    manifests: list[Path] | None = None,
    seed: int = 0,
    decoder_bias: DecoderBias | None = None,
) -> None:
    """Take in an SAE of SAELens (a folder) or saev (a .pt file); writes sae.safetensors and config.json.

    With `manifests` also what training would have left behind: metrics.parquet and summary.json, measured on held-out
    tokens of these stores; what only training can tell is empty in them.

    Parameters
    ----------
    source
        Folder with cfg.json and sae_weights.safetensors, or the checkpoint; or either on the Hugging Face hub,
        hub:owner/name[/subfolder or file][@revision], of which only weights and configuration are fetched.
    output
        Folder of the results.
    normalization
        JSON file with `mean` (a list of d_model numbers) and `scale`: what the project subtracted from raw activations
        and then divided them by before its SAE saw them. Their files do not hold it; left out, nothing was done. For
        `expected_average_only_in` of SAELens, mean 0 and scale the activations' mean norm over the root of d_model.
    manifests
        Manifests of the stores that a study would train on, of the layer that the SAE was trained for.
    seed
        Of the held-out tokens: with that of the study's own SAEs, the same as theirs.
    decoder_bias
        For files of saev: whether b_dec is subtracted from activations before they are encoded. Needed for schema 1
        alone, which was written in either case.

    Raises
    ------
    ModelError
        If the files are not what they should be, hold what cannot be kept, or belong to other activations.
    """
    found_at = local_source(source)
    source = found_at.path
    if is_own(source) and (decoder_bias, normalization) != (None, None):
        raise ModelError(f"{source}: an SAE of visae, which has both; leave decoder_bias and normalization out")
    if source.is_dir() and decoder_bias is not None:
        raise ModelError(f"{source}: decoder_bias is for files of saev; this is a folder, as SAELens writes")
    is_normalized = normalization is not None
    if is_own(source):
        sae, notices = read_own(source)
    else:
        sae, notices = read_saelens(source, is_normalized) if source.is_dir() else read_saev(source, decoder_bias)
    if normalization is not None:
        mean, scale = _normalization(normalization, sae.d_model)
        sae.mean.copy_(mean)
        sae.scale.fill_(scale)
    weights = source / "sae_weights.safetensors" if source.is_dir() else source
    weights = weights_of(source) if is_own(source) else weights
    made_from = Source(found_at.name, file_sha256(weights), __version__, found_at.revision)
    notices = [*found_at.notices, *notices]
    if manifests is None:
        log_notices(found_at.name, notices)
        save_sae(sae, output, imported=asdict(made_from), notices=as_plain(notices))
        return
    provenance = Provenance(made_from, manifests, seed, "cpu")
    data = TrainingData(manifests, [], batch_size=1, seed=seed)
    if data.d_model != sae.d_model:
        raise ModelError(
            f"{manifests[0]}: has activations of {data.d_model} numbers, and {source} is for {sae.d_model}; give the "
            "store of the model and layer that it was trained on"
        )
    found = quality(sae, *data.held_out)
    notices = [*notices, *_worse_than_the_mean(found)]
    log_notices(found_at.name, notices)
    save_sae(sae, output, imported=asdict(made_from), notices=as_plain(notices), **points(data))
    _write_measured(sae, found, notices, data, output, provenance)


def _worse_than_the_mean(found: Quality) -> list[Notice]:
    if found.normalized_mse < 1:
        return []
    text = (
        f"a normalized error of {found.normalized_mse:.3g}: the mean of the activations alone has 1. It was trained on "
        "another model, layer or kind of tokens, or on activations that were normalized first (--normalization)"
    )
    return [Notice("warning", text)]


def _write_measured(
    sae: SparseAutoencoder,
    found: Quality,
    notices: list[Notice],
    data: TrainingData,
    output: Path,
    provenance: Provenance,
) -> None:
    """Write metrics.parquet, one row of held-out tokens, and summary.json."""
    measured = asdict(found) | {"dead_share": found.silent_share}
    row = {"step": 0, "split": "val", **{name: value for name, value in measured.items() if name in METRICS}}
    with atomic_path(output / "metrics.parquet") as temporary:
        metrics_table([row]).write_parquet(temporary)
    only_training_tells = dict.fromkeys(("tokens_per_second", "data_wait_share", "n_tokens_trained", "processes"))
    summary = {
        **measured,
        **only_training_tells,
        "measured_on": data.measured_on,
        "variant": sae.variant.name,
        "width": sae.width,
        "d_model": sae.d_model,
        **points(data),
        "notices": as_plain(notices),
        "provenance": provenance.record(),
    }
    write_json(output / "summary.json", summary)


def _normalization(path: Path, d_model: int) -> tuple[Tensor, float]:
    """Mean (d_model,) and scale from a JSON file."""
    try:
        numbers = dict(read_json(path))
        unknown = sorted(numbers.keys() - {"mean", "scale"})
        mean, scale = torch.tensor(numbers["mean"], dtype=torch.float32), float(numbers["scale"])
    except (OSError, ValueError, KeyError, TypeError):
        mean, scale, unknown = torch.empty(0), 0.0, []
    is_finite = bool(torch.isfinite(mean).all()) and scale < float("inf")
    if unknown or mean.shape != (d_model,) or not scale > 0 or not is_finite:
        raise ModelError(f"{path}: allowed: `mean`, {d_model} numbers, and `scale`, above 0")
    return mean, scale
