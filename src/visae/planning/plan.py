"""Print what a configuration will need."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from visae.config.parse import load_config
from visae.errors import ConfigError
from visae.planning.needs import Needs
from visae.planning.pictures import pictures_by_dataset, told_pictures
from visae.planning.speed import MeasuredSpeed, StatedSpeed

_NOT_COUNTED = (
    "Not counted: reading and decoding pictures, heads, interventions and figures; indexes, tables and model weights."
)
_TITLES = {
    "stores": "Activations, one forward pass for all layers of a row",
    "saes": "Sparse autoencoders",
    "codes": "Codes",
}
_COLUMNS = {
    "stores": ("dataset", "model", "layers", "pictures", "tokens", "bytes", "flop", "hours"),
    "saes": (
        *("sae", "trained_on", "model", "layer", "count", "width", "tokens", "bytes"),
        *("checkpoint_bytes", "memory_bytes", "flop", "hours"),
    ),
    "codes": ("sae", "trained_on", "model", "layer", "dataset", "tokens", "active", "bytes", "flop", "hours"),
}


def plan(
    configfile: Path,
    pictures: list[str] | None = None,
    tflops: float | None = None,
    measure: bool = False,
    active: float = 100,
    json: bool = False,
) -> None:
    """Print the bytes, memory, floating-point operations and hours that a configuration will need; nothing is made.

    Operations count matrix products, those of SAEs as if codes were dense. Hours need --tflops or --measure.

    Parameters
    ----------
    configfile
        The YAML that the workflow will run with.
    pictures
        NAME=NUMBER for data sets that are not here yet; all others are counted.
    tflops
        Floating-point operations a second, in 10^12, that a job is assumed to reach on one GPU.
    measure
        Run each model and each kind of SAE for some seconds on this machine instead, and take their rates.
    active
        Active latents a patch where the configuration sets no bound (`k`, or a limit on l0).
    json
        Print JSON instead of tables.
    """
    if measure and tflops is not None:
        raise ConfigError("--measure and --tflops: give one of them")
    settings = load_config(configfile)
    needs = Needs(settings, pictures_by_dataset(settings, told_pictures(pictures or [], settings)), active)
    speed = MeasuredSpeed(needs) if measure else None if tflops is None else StatedSpeed(tflops)
    found = planned(needs, speed)
    print(json_text.dumps(found, indent=2) if json else "\n".join(as_text(found)))


def planned(needs: Needs, speed: StatedSpeed | MeasuredSpeed | None = None) -> dict[str, Any]:
    """Rows of `stores`, `saes` and `codes`, their `total`, and where hours are from; those are None without a speed."""
    rows = {
        name: [{**asdict(need), "hours": speed.hours(need) if speed else None} for need in part]
        for name, part in (("stores", needs.stores()), ("saes", needs.saes()), ("codes", needs.codes()))
    }
    every = [row for part in rows.values() for row in part]
    total = {key: sum(row[key] for row in every) for key in ("bytes", "flop")}
    hours = sum(row["hours"] for row in every) if speed else None
    checkpoints = sum(row["checkpoint_bytes"] for row in rows["saes"])
    source = speed.source if speed else "unknown: give --tflops or --measure"
    return {**rows, "total": {**total, "checkpoint_bytes": checkpoints, "hours": hours}, "hours_are": source}


def as_text(found: dict[str, Any]) -> list[str]:
    """Lines of Markdown tables."""
    lines = []
    for name, columns in _COLUMNS.items():
        lines += [f"{_TITLES[name]}:", "", *_table(columns, found[name]), ""]
    total = found["total"]
    hours = "" if total["hours"] is None else f", {_hours(total['hours'])} hours on one GPU"
    return [
        *lines,
        f"In all: {_bytes(total['bytes'])}, {_bytes(total['checkpoint_bytes'])} of checkpoints while SAEs train"
        f"{hours}.",
        f"Hours are {found['hours_are']}.",
        _NOT_COUNTED,
    ]


def _table(columns: Sequence[str], rows: list[dict[str, Any]]) -> list[str]:
    cells = [[_heading(column) for column in columns]]
    cells += [[_SHOWN.get(column, _plain)(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [column in _SHOWN for column in columns]

    def line(row: list[str]) -> str:
        padded = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    dashes = [f"{'-' * (width - is_right)}{':' * is_right}" for width, is_right in zip(widths, right, strict=True)]
    return [line(cells[0]), line(dashes), *map(line, cells[1:])]


def _heading(column: str) -> str:
    own = {"dataset": "data set", "sae": "SAE", "count": "SAEs", "width": "latents each", "flop": "FLOP"}
    own |= {"checkpoint_bytes": "checkpoints", "memory_bytes": "memory", "active": "active a patch"}
    return own.get(column, column.replace("_", " "))


def _plain(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"


def _hours(value: float | None) -> str:
    return "?" if value is None else f"{value:,.1f}" if value >= 0.05 else "< 0.1"


_SHOWN: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("count", "width", "pictures", "tokens", "active"), _count),
    **dict.fromkeys(("bytes", "checkpoint_bytes", "memory_bytes"), _bytes),
    "flop": lambda value: f"{value:.2e}",
    "hours": _hours,
}
