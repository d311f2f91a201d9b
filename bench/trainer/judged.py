"""From what was measured to rows: rates, ratios, targets, peak memory, codes a token."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from bench.harness import Measurement, Target, fastest, measurement, median_ratio
from bench.trainer.contenders import Found

OURS = "visae"
LESS_THAN_PEERS = Target("ratio", "<", 1)
# ReLU codes count as sparse below this many a token.
SPARSE_L0 = 100


@dataclass(frozen=True)
class Goal:
    """A target on visae over the fastest of some peers.

    Attributes
    ----------
    what
        How the row names them.
    names
        The peers; None for all.
    """

    what: str
    target: Target | None
    names: tuple[str, ...] | None = None


def _goals(sparsify: float, others: float) -> list[Goal]:
    peers = ("SAELens", "dictionary_learning", "overcomplete", "saev (its ReLU)")
    each = [Goal(name, Target("ratio", ">=", others), (name,)) for name in peers]
    at_its_fastest = ("sparsify, signum", "sparsify, Adam")
    return [Goal("sparsify at its fastest", Target("ratio", ">=", sparsify), at_its_fastest), *each]


def _fastest_peer(bound: float | None) -> list[Goal]:
    return [Goal("the fastest peer", None if bound is None else Target("ratio", ">=", bound))]


# By variant: as its users run it, and with the allocator tuned for all.
GOALS = {
    "topk": {"as run": _goals(2.5, 8), "tuned": _goals(1.35, 4)},
    "batchtopk": {"as run": _fastest_peer(4), "tuned": _fastest_peer(None)},
    "jumprelu": {"as run": _fastest_peer(4), "tuned": _fastest_peer(None)},
    "relu": {"as run": _fastest_peer(1.5), "tuned": _fastest_peer(1), "sparse, tuned": _fastest_peer(2)},
}


def rows_of(variant: str, how: str, found: Found) -> list[Measurement]:
    """All rows of one variant under one allocator."""
    title = f"{variant}, {how}"
    rows = [
        measurement(f"{title}: {name}", median(rates), "tokens/s", _over(found, name))
        for name, rates in found.rates.items()
    ]
    rows += [measurement(f"{title}: {name}", 0, f"not run: {why}") for name, why in found.missing.items()]
    rows += [_goal_row(title, goal, found, how.startswith("sparse")) for goal in GOALS[variant][how]]
    rows += [measurement(f"{title}: codes a token, {name}", value, "L0") for name, value in found.l0.items()]
    return rows + (_memory_rows(title, found) if how == "as run" else [])


def _over(found: Found, name: str) -> float | None:
    return median_ratio(found.rates, OURS, name) if OURS in found.rates else None


def _goal_row(title: str, goal: Goal, found: Found, sparse: bool) -> Measurement:
    name = f"{title}: visae over {goal.what}"
    peers = [peer for peer in found.rates if peer != OURS and (goal.names is None or peer in goal.names)]
    if OURS not in found.rates or not peers:
        return measurement(name, 0, "not measured")
    best = fastest(found.rates, peers)
    ratio = median_ratio(found.rates, OURS, best)
    if len(peers) > 1:
        name += f" ({best})"
    if sparse and found.l0[OURS] >= SPARSE_L0:
        return measurement(name, ratio, f"x, but {found.l0[OURS]:.0f} codes a token", ratio)
    return measurement(name, ratio, "x", ratio, goal.target)


def _memory_rows(title: str, found: Found) -> list[Measurement]:
    peers = [megabytes for name, megabytes in found.megabytes.items() if name != OURS]
    rows = []
    for name, megabytes in found.megabytes.items():
        judged = name == OURS and peers
        ratio, target = (megabytes / min(peers), LESS_THAN_PEERS) if judged else (None, None)
        rows.append(measurement(f"{title}: peak memory, {name}", megabytes, "MB", ratio, target))
    return rows
