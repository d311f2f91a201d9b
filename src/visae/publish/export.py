"""Giving SAEs away: each format that `export-sae` writes is an entry of `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from visae.errors import ConfigError
from visae.outputs import check_folder
from visae.publish.card import Publication
from visae.publish.dictionary_learning import write_dictionary_learning
from visae.publish.hub import write_hub
from visae.publish.visaebench import Inputs, write_visaebench
from visae.sae.autoencoder import SparseAutoencoder, load_sae
from visae.sae.foreign.saelens import write_saelens
from visae.sae.sources import local_source

FormatName = Literal["saelens", "dictionary_learning", "visaebench", "hub"]


@dataclass(frozen=True)
class Export:
    """What is written, where to, and how.

    Attributes
    ----------
    sae, config
        The SAE, and its config.json.
    folder
        Where to.
    inputs
        Of visaebench: what it takes.
    said
        Of the hub: what only who publishes can say.
    """

    sae: SparseAutoencoder
    config: Path
    folder: Path
    inputs: Inputs
    said: Publication


@dataclass(frozen=True)
class Format:
    """Files of one project.

    Attributes
    ----------
    write
        Writes an SAE, and returns what is to be said of it, line by line; raises ModelError for what cannot be written.
    opens
        Python that opens FOLDER there.
    """

    write: Callable[[Export], list[str]]
    opens: str


def _saelens(export: Export) -> list[str]:
    write_saelens(export.sae, export.folder)
    return []


def _dictionary_learning(export: Export) -> list[str]:
    write_dictionary_learning(export.sae, export.folder)
    return []


def _visaebench(export: Export) -> list[str]:
    write_visaebench(export.sae, export.folder, export.inputs)
    if export.inputs == "normalized":
        return ["give visaebench.evaluate what config.json says: mean=torch.tensor(sae.config['mean']), std=..."]
    d_model = export.sae.d_model
    return [
        f"it takes raw activations: give visaebench.evaluate mean=torch.zeros({d_model}) and std=1.0, or else it "
        "finds its own; --inputs normalized writes an SAE that takes those"
    ]


def _hub(export: Export) -> list[str]:
    return write_hub(export.sae, export.config, export.folder, export.said)


FORMATS: Mapping[FormatName, Format] = {
    "saelens": Format(_saelens, "from sae_lens import SAE; SAE.load_from_disk('FOLDER')"),
    "dictionary_learning": Format(
        _dictionary_learning,
        "from dictionary_learning.utils import load_dictionary; load_dictionary('FOLDER', 'cpu')",
    ),
    "visaebench": Format(_visaebench, "import visaebench; visaebench.load_sae('FOLDER', device='cpu')"),
    "hub": Format(_hub, "from visae.sae import load_sae; load_sae('FOLDER')"),
}


def export_sae(
    config: Path,
    output: Path,
    as_: FormatName = "saelens",
    inputs: Inputs = "raw",
    said: Publication = Publication(),  # noqa: B008  frozen
) -> None:
    """Write an SAE as another project reads it, with the same codes of raw activations; or a folder for the hub.

    Parameters
    ----------
    config
        The SAE's config.json, beside which sae.safetensors lies; or the folder of both, here or on the hub,
        hub:owner/name[/subfolder][@revision].
    output
        Folder of the results.
    as_
        Whose format; hub is visae's own, with a model card.
    inputs
        With --as visaebench, what the SAE takes there: raw activations, or what `visaebench.evaluate` makes of them
        with a mean and a standard deviation, which then stand in config.json.
    said
        With --as hub, what only who publishes can say.

    Raises
    ------
    ModelError
        If the format cannot say what the SAE does.
    ConfigError
        If an option does not belong to the format, or has a value that the hub does not allow.
    """
    if inputs != "raw" and as_ != "visaebench":
        raise ConfigError(f"inputs: {inputs}: for --as visaebench alone; {as_} takes raw activations")
    unused = [spec.name for spec in fields(said) if getattr(said, spec.name) != spec.default]
    if unused and as_ != "hub":
        raise ConfigError(f"{', '.join(unused)}: for --as hub alone, which writes a model card; {as_} has none")
    check_folder(output)
    config = local_source(config).path
    config = config / "config.json" if config.is_dir() else config
    if output.resolve() == config.parent.resolve():
        raise ConfigError(f"output: {output} has the SAE's own files, which would be overwritten; name another folder")
    sae = load_sae(config)
    hints = FORMATS[as_].write(Export(sae, config, output, inputs, said))
    print("\n  ".join([f"{output}: opens by: {FORMATS[as_].opens.replace('FOLDER', str(output))}", *hints]))
