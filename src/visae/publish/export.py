"""Giving SAEs away: each format that `export-sae` writes is an entry of `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from visae.errors import ModelError
from visae.publish.dictionary_learning import write_dictionary_learning
from visae.publish.visaebench import Inputs, write_visaebench
from visae.sae.autoencoder import SparseAutoencoder, load_sae
from visae.sae.foreign.saelens import write_saelens

FormatName = Literal["saelens", "dictionary_learning", "visaebench"]


@dataclass(frozen=True)
class Format:
    """A format of another project.

    Attributes
    ----------
    write
        Writes an SAE into a folder; raises ModelError for what the format cannot say.
    opens
        Python that opens the folder FOLDER there.
    """

    write: Callable[[SparseAutoencoder, Path], Path]
    opens: str


FORMATS: Mapping[str, Format] = {
    "saelens": Format(write_saelens, "from sae_lens import SAE; SAE.load_from_disk('FOLDER')"),
    "dictionary_learning": Format(
        write_dictionary_learning,
        "from dictionary_learning.utils import load_dictionary; load_dictionary('FOLDER', 'cpu')",
    ),
    "visaebench": Format(write_visaebench, "import visaebench; visaebench.load_sae('FOLDER', device='cpu')"),
}


def export_sae(config: Path, output: Path, as_: FormatName = "saelens", inputs: Inputs = "raw") -> None:
    """Write an SAE as another project reads it: raw activations in and out, the same codes.

    Parameters
    ----------
    config
        The SAE's config.json; sae.safetensors lies beside it. Or the folder of both.
    output
        Folder of the results.
    as_
        Whose format.
    inputs
        For visaebench alone, what the SAE takes there: raw activations, or what `visaebench.evaluate` makes of them
        with a mean and a standard deviation, which then stand in config.json.

    Raises
    ------
    ModelError
        If the format cannot say what the SAE does.
    """
    if inputs != "raw" and as_ != "visaebench":
        raise ModelError(f"inputs: {inputs}: for --as visaebench alone; {as_} takes raw activations")
    sae = load_sae(config)
    if as_ == "visaebench":
        write_visaebench(sae, output, inputs)
    else:
        FORMATS[as_].write(sae, output)
    print(f"{output}: opens by: {FORMATS[as_].opens.replace('FOLDER', str(output))}")


assert {*FORMATS} == {*get_args(FormatName)}
