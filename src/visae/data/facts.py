"""What was read of a data set, in words: for the log of its index, the report and the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from visae.notices import first_of

_NAMED = 8


def dataset_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What a person checks of a data set, by its name; what a kind has nothing of is left out.

    Parameters
    ----------
    summary
        summary.json beside the index. Given activations have a part of its keys.
    """
    facts = {
        "kind": summary["kind"],
        "pictures": _pictures(summary),
        "sizes": _sizes(summary.get("sizes")),
        "classes": _classes(summary.get("classes") or []),
        "classes that never occur": first_of(summary.get("never") or [], _NAMED),
        "unlabelled pixels": _share(summary.get("unlabelled_share")),
        "ids in masks": _ids(summary.get("mask_ids") or []),
        "modes of masks": _counts(summary.get("mask_modes") or {}),
        "turned by EXIF": _turned(summary),
        "pairs that differ in one cause": _pairs(summary.get("pairs") or []),
        "left out": _left_out(summary.get("left_out") or []),
        "unreadable, skipped": _number(summary.get("n_skipped")),
        "in two splits": _shared(summary),
    }
    return {name: text for name, text in facts.items() if text}


def _pictures(summary: Mapping[str, Any]) -> str:
    splits = summary.get("splits") or {}
    parts = []
    for split, counts in splits.items():
        told = [
            f"{counts[key]:,} {what}"
            for key, what in (("n_labelled", "labelled"), ("n_masked", "with masks"))
            if 0 < counts[key] < counts["n_images"]
        ]
        parts.append(f"{split} {counts['n_images']:,}" + (f" ({', '.join(told)})" if told else ""))
    total = f"{sum(summary['n_images'].values()):,}"
    return f"{total}: {', '.join(parts)}" if parts else total


def _sizes(sizes: Mapping[str, Any] | None) -> str:
    if not sizes:
        return ""
    each = {name: f"{sizes[name][0]} x {sizes[name][1]}" for name in ("smallest", "median", "largest")}
    return (
        each["median"] if len(set(each.values())) == 1 else ", ".join(f"{name} {size}" for name, size in each.items())
    )


def _classes(classes: list[Mapping[str, Any]]) -> str:
    if not classes:
        return ""
    counts = [sum(entry["n_images"].values()) for entry in classes if entry.get("n_images")]
    spread = f"; pictures of a class: {min(counts):,} to {max(counts):,}" if counts else ""
    return f"{len(classes)}: {first_of([entry['name'] for entry in classes], _NAMED)}{spread}"


def _ids(ids: list[Mapping[str, Any]]) -> str:
    return first_of([f"{entry['id']} ({entry['share']:.1%})" for entry in ids], _NAMED)


def _turned(summary: Mapping[str, Any]) -> str:
    turned, masked = summary.get("n_turned"), summary.get("n_turned_masked")
    if not turned:
        return _number(turned)
    return f"{turned:,}" + (f", {masked:,} of them with masks" if masked else "")


def _pairs(causes: Iterable[Mapping[str, Any]]) -> str:
    """Numbers by cause, and how much differs outside the region."""
    told = []
    for found in causes:
        outside = found["differs_outside"]
        beyond = "no region" if outside is None else f"{outside:.2%} of what lies outside the region differs"
        told.append(f"{found['cause']} {sum(found['n_pairs'].values()):,} ({beyond})")
    return ", ".join(told)


def _left_out(entries: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(f"{entry['n_files']:,} {entry['what']}, such as {entry['example']}" for entry in entries)


def _shared(summary: Mapping[str, Any]) -> str:
    if "n_shared_between_splits" not in summary:
        return ""
    shared = summary["n_shared_between_splits"]
    if shared is None:
        return "not counted (hashes: false)"
    example = summary.get("shared_example")
    return f"{shared:,}" + (f", such as {' and '.join(example)}" if example else "")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _number(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
