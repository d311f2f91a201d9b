"""From what was trained to rows: errors, ratios, targets."""

from __future__ import annotations

from harness import Measurement, Target, measurement
from quality_runs import Outcome, Study, comparable

OURS = "visae"
NO_WORSE = Target("ratio", "<=", 1)


def rows_of(title: str, study: Study, wanted_l0: float) -> list[Measurement]:
    """All rows of one variant: every contender after every number of steps, and visae beside the best peer."""
    rows = []
    for steps in sorted({outcome.steps for outcome in study.outcomes}):
        there = [outcome for outcome in study.outcomes if outcome.steps == steps]
        ours = next((outcome for outcome in there if outcome.name == OURS), None)
        heading = f"{title}, {steps} steps"
        rows += [_row(heading, outcome, ours, wanted_l0) for outcome in there]
        rows.append(_goal_row(heading, there, ours, wanted_l0))
    return rows + [measurement(f"{title}: {name}", 0, f"not run: {why}") for name, why in study.missing.items()]


def _row(heading: str, outcome: Outcome, ours: Outcome | None, wanted_l0: float) -> Measurement:
    name = f"{heading}: {outcome.name}, {outcome.how}"
    if not comparable(outcome.l0, wanted_l0):
        return measurement(name, outcome.nmse, f"NMSE, but with {outcome.l0:.0f} codes a token")
    ratio = None if ours is None or not comparable(ours.l0, wanted_l0) else ours.nmse / outcome.nmse
    return measurement(name, outcome.nmse, "NMSE", ratio)


def _goal_row(heading: str, there: list[Outcome], ours: Outcome | None, wanted_l0: float) -> Measurement:
    peers = [outcome for outcome in there if outcome.name != OURS and comparable(outcome.l0, wanted_l0)]
    if ours is None or not peers or not comparable(ours.l0, wanted_l0):
        return measurement(f"{heading}: visae over the best peer", 0, "not measured")
    best = min(peers, key=lambda outcome: outcome.nmse)
    ratio = ours.nmse / best.nmse
    return measurement(f"{heading}: visae over the best peer ({best.name}, {best.how})", ratio, "x", ratio, NO_WORSE)
