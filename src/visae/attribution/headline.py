"""What was found of where latents look, in lines for the headline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json


def attribution_lines(folder: Path, sae: str, dataset: str) -> list[str]:
    """Lines on one SAE and data set, from the JSON files in the folder of its features; none where there are none."""
    return _of_exemplars(folder / "attribution.json", sae, dataset) + _of_pairs(
        folder / "attribution_of_pairs.json", sae, dataset
    )


def _of_exemplars(path: Path, sae: str, dataset: str) -> list[str]:
    if not path.is_file():
        return []
    found = read_json(path)
    measures = found["measures"]
    agreed = ", ".join(
        f"{words} {_number(measures[f'agreement_{name}'])}"
        for name, words in (("attribution", "signed"), ("absolute", "of sizes"), ("shuffled", "shuffled"))
    )
    spread, own = (_share(measures[name]) for name in ("half_attribution", "own_attribution"))
    return [
        f"  Where {len(found['latents'])} latents of {sae} look in {dataset}, {found['n_pictures']} pictures: rank "
        f"correlation of attribution and occlusion {agreed}; half of the attribution lies on {spread} of the patches, "
        f"and {own} on the strongest itself"
    ]


def _of_pairs(path: Path, sae: str, dataset: str) -> list[str]:
    if not path.is_file():
        return []
    lines = [f"  Share of where latents of {sae} look that lies where pairs of {dataset} differ [95 %]:"]
    for one in read_json(path)["causes"]:
        lines.append(
            f"    {one['cause']:12} attribution {_share(one['attribution'])}, occlusion {_share(one['occlusion'])}, "
            f"activation {_share(one['activation'])}, random map {_share(one['area'])} ({one['n_pairs']} pairs)"
        )
    return lines


def _number(found: dict[str, Any]) -> str:
    return "unknown" if found["value"] is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _share(found: dict[str, Any]) -> str:
    return "unknown" if found["value"] is None else f"{found['value']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
