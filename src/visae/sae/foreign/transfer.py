"""Taking in SAEs from other projects."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from visae.activations.store import ActivationStore
from visae.config.published import Wanted
from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, write_json
from visae.notices import Notice, as_plain, log_notices
from visae.outputs import check_folder
from visae.provenance import Provenance
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.data import TrainingData
from visae.sae.foreign.completing import completed
from visae.sae.foreign.fitting import check_place, check_wanted, located
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.metrics import Quality, quality
from visae.sae.proof.command import is_looked_at, proof_of
from visae.sae.proof.settings import ProofSettings
from visae.sae.published import METRICS, metrics_table, points
from visae.sae.sources import local_source
from visae.version import __version__

# What is written of measured SAEs alone.
_MEASURED = ("metrics.parquet", "summary.json")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where an SAE was taken from: file or name on the hub and its commit there, bytes, and by which version."""

    path: str
    format: str
    sha256: str
    visae: str
    revision: str | None = None


def import_sae(
    source: str | Path,
    output: Path,
    unsaid: Unsaid | None = None,
    manifests: list[Path] | None = None,
    seed: int = 0,
    wanted: Wanted | None = None,
    looked_at: ProofSettings | None = None,
) -> None:
    """Take in an SAE of another project; writes sae.safetensors and config.json.

    The format is told by what is in the files. With `manifests` also what training would have left behind:
    metrics.parquet and summary.json, measured on held-out tokens of these stores; what only training can tell is empty
    in them.

    Parameters
    ----------
    source
        File of an SAE, or folder that has one; or either on the Hugging Face hub,
        hub:owner/name[/subfolder or file][@revision], of which only weights and configuration are fetched.
    output
        Folder of the results.
    unsaid
        What the files do not say.
    manifests
        Manifests of the stores that a study would train on, of the layer that the SAE was trained for.
    seed
        Of the held-out tokens: with that of the study's own SAEs, the same as theirs.
    wanted
        What it has to be.
    looked_at
        Model and pictures: with both, where the SAE belongs is looked for there as `sae-place` does, and kept in
        config.json as `proof`.

    Raises
    ------
    ModelError
        If the files are not what they should be, hold what cannot be kept, or belong to other activations.
    ConfigError
        If what is looked at makes no sense, as `sae_place`.
    """
    unsaid = unsaid or Unsaid()
    is_looked_at(looked_at)  # what is wrong there is said before anything is fetched
    check_folder(output)
    found_at = local_source(source)
    given, name, path = read_foreign(found_at.path, unsaid)
    _refuse_overwriting(path, output)
    sha256 = file_sha256(path)
    check_wanted(given.sae, sha256, wanted or Wanted(), found_at.name)
    data = None if manifests is None else _data(given.sae, manifests, seed, path)
    sae, notices, _ = completed(given, unsaid, data)
    if data is not None:
        sae.place = located(sae.place, data)
    made_from = Source(found_at.name, name, sha256, __version__, found_at.revision)
    found = None if data is None else quality(sae, *data.held_out)
    proof, proven = proof_of(sae, looked_at, seed)
    notices = [*found_at.notices, *notices, *proven, *([] if found is None else _worse_than_the_mean(found))]
    log_notices(found_at.name, notices)
    more = proof | ({} if data is None else points(data))
    for measured in _MEASURED:  # on another SAE, which lay there before
        (output / measured).unlink(missing_ok=True)
    save_sae(sae, output, imported=asdict(made_from), notices=as_plain(notices), **more)
    logger.info("%s: %s", output, _described(sae, name, path))
    if data is not None and found is not None:
        _write_measured(sae, found, notices, data, output, Provenance(made_from, manifests or [], seed, "cpu"))


def _refuse_overwriting(path: Path, output: Path) -> None:
    """Refuse to write over the files that an SAE is taken from, whose settings may have the same name."""
    if output.resolve() == path.parent.resolve():
        raise ModelError(f"{output}: has the files that are taken in, which would be overwritten; name another folder")


def _described(sae: SparseAutoencoder, name: str, path: Path) -> str:
    """What was taken in, as one line."""
    place, tokens = sae.place, {"patches": "patches", "class": "the class token", "all": "all tokens"}
    model = place.model or "an unknown model"
    layer = "an unknown block" if place.layer is None else f"block {place.layer} ({place.hook})"
    return (
        f"{sae.variant.name}, {sae.width} latents on {sae.d_model} dimensions, of {name}'s {path.name}; "
        f"normalization {sae.normalization}; of {tokens[place.tokens]} of {layer} of {model}"
    )


def _data(sae: SparseAutoencoder, manifests: list[Path], seed: int, path: Path) -> TrainingData:
    """Stores of the activations that an SAE takes."""
    if sae.is_transcoder:
        raise ModelError(
            f"{path}: a transcoder, whose error is that of another layer's activations; leave --manifests out"
        )
    d_model = ActivationStore.open(manifests[0]).d_model
    if d_model != sae.d_model:
        raise ModelError(
            f"{manifests[0]}: has activations of {d_model} numbers, and {path} is for {sae.d_model}; give the store of "
            "the model and layer that it was trained on"
        )
    data = TrainingData(manifests, [], batch_size=1, seed=seed, kinds=sae.place.tokens)
    check_place(sae.place, data, manifests[0], str(path))
    return data


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
        "tokens": data.kinds,
        "variant": sae.variant.name,
        "width": sae.width,
        "d_model": sae.d_model,
        **points(data),
        "notices": as_plain(notices),
        "provenance": provenance.record(),
    }
    write_json(output / "summary.json", summary)
