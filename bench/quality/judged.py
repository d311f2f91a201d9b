"""From what was trained to rows: errors, ratios, targets."""

from __future__ import annotations

from bench.harness import Measurement, Target, measurement
from bench.quality.runs import NOT_KEPT, OURS, SEEDS, Outcome, Study

NO_WORSE = Target("ratio", "<=", 1)


def rows_of(title: str, study: Study) -> list[Measurement]:
    """All rows of one variant: every contender after every number of steps, and visae beside the best peer."""
    rows = []
    for steps in sorted({outcome.steps for outcome in study.outcomes}):
        there = [outcome for outcome in study.outcomes if outcome.steps == steps]
        ours = next((outcome for outcome in there if outcome.name == OURS), None)
        heading = f"{title}, {steps} steps"
        for outcome in there:
            unit = f"NMSE at L0 {outcome.l0:.1f}, {100 * outcome.silent_share:.0f} % silent"
            if outcome.seeds < len(SEEDS):
                unit += f", seeds: {outcome.seeds}"
            ratio = None if ours is None else ours.nmse / outcome.nmse
            rows.append(measurement(f"{heading}: {outcome.name}, {outcome.how}", outcome.nmse, unit, ratio))
        waiting = any(why == NOT_KEPT and name.startswith(f"{steps} steps:") for name, why in study.missing.items())
        rows.append(_goal_row(heading, there, ours, waiting))
    return rows + [measurement(f"{title}, {name}", 0, f"not run: {why}") for name, why in study.missing.items()]


def _goal_row(heading: str, there: list[Outcome], ours: Outcome | None, waiting: bool) -> Measurement:
    """Visae beside the best peer; nothing is held or missed while peers wait to be measured."""
    peers = [outcome for outcome in there if outcome.name != OURS]
    if ours is None or not peers:
        return measurement(f"{heading}: visae over the best peer", 0, "not measured")
    best = min(peers, key=lambda outcome: outcome.nmse)
    ratio = ours.nmse / best.nmse
    name = f"{heading}: visae over the best peer{' so far' * waiting} ({best.name}, {best.how})"
    return measurement(name, ratio, "x", ratio, None if waiting else NO_WORSE)
