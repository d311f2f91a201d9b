"""Softmax regression on standardized features: by scikit-learn in memory, or by torch in pieces."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from visae.config.settings import ProbeSettings

# `auto` leaves more values (pictures times features) than this to torch: 160 MB as scikit-learn holds them.
MOST_VALUES = 20_000_000
# Rows of features that torch computes with at once.
_PIECE = 8192

Weights = tuple[np.ndarray, np.ndarray]
"""Weight (n_classes, n_features) and bias (n_classes,), for features that are not standardized."""

Solver = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int, torch.device], Weights]
"""Takes features (n, n_features), the rows to fit, all rows' classes from 0, C, iterations and device."""


def by_scikit_learn(
    features: np.ndarray, rows: np.ndarray, classes: np.ndarray, c: float, max_iterations: int, device: torch.device
) -> Weights:
    """Fit on a copy of the features in float64, on the CPU."""
    # Here, so that whoever only reads a probe does not wait for it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    used, known = features[rows].astype(np.float64), classes[rows]
    mean, scale = used.mean(axis=0), _scale(used.std(axis=0))
    regression = LogisticRegression(C=c, max_iter=max_iterations)
    with warnings.catch_warnings():
        # A weak penalty on separable classes never quite converges; the held-out loss judges the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit((used - mean) / scale, known)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps the second's logit, and the first's is 0
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    return _unstandardized(weight, bias, mean, scale)


def by_torch(
    features: np.ndarray, rows: np.ndarray, classes: np.ndarray, c: float, max_iterations: int, device: torch.device
) -> Weights:
    """Minimize scikit-learn's loss by L-BFGS, which reads the features piece by piece in each iteration.

    Of two classes, scikit-learn penalizes one vector of weights and this two, each half of it: the penalty is doubled
    there for the same probabilities.
    """
    mean, scale = _moments(features, rows)
    n, (n_features, n_classes) = len(rows), (features.shape[1], int(classes[rows].max()) + 1)
    penalty = (2 if n_classes == 2 else 1) / (c * n)
    shift, factor = (torch.from_numpy(part).float().to(device) for part in (mean, 1 / scale))
    # The last column is the bias, which is not penalized.
    weights = torch.zeros(n_classes, n_features + 1, device=device, requires_grad=True)

    def loss_and_gradient() -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float64, device=device)
        gradient = torch.zeros(weights.shape, dtype=torch.float64, device=device)
        for start in range(0, n, _PIECE):
            piece = rows[start : start + _PIECE]
            inputs = (torch.from_numpy(features[piece]).float().to(device) - shift) * factor
            truth = torch.from_numpy(classes[piece]).to(device)[:, None]
            log_probabilities = torch.log_softmax(torch.addmm(weights[:, -1], inputs, weights[:, :-1].T), dim=1)
            loss -= log_probabilities.gather(1, truth).double().sum()
            error = log_probabilities.exp()
            error.scatter_add_(1, truth, error.new_full(truth.shape, -1.0))
            gradient[:, :-1] += error.T @ inputs
            gradient[:, -1] += error.sum(dim=0)
        penalized = weights[:, :-1].double()
        gradient /= n
        gradient[:, :-1] += penalty * penalized
        weights.grad = gradient.float()
        return loss / n + penalty / 2 * penalized.square().sum()

    optimizer = torch.optim.LBFGS(
        [weights], max_iter=max_iterations, tolerance_grad=1e-5, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )
    with torch.no_grad():
        optimizer.step(loss_and_gradient)
    found = weights.detach().double().cpu().numpy()
    return _unstandardized(found[:, :-1], found[:, -1], mean, scale)


SOLVERS: dict[str, Solver] = {"scikit-learn": by_scikit_learn, "torch": by_torch}


def chosen_solver(wanted: str, n_values: int) -> str:
    """Turn `auto` into the name of the solver that a number of values calls for."""
    if wanted != "auto":
        return wanted
    return "scikit-learn" if n_values <= MOST_VALUES else "torch"


def choose_c(
    features: np.ndarray,
    classes: np.ndarray,
    settings: ProbeSettings,
    seed: int,
    solver: Solver = by_scikit_learn,
    device: torch.device | None = None,
) -> tuple[float, dict[float, float]]:
    """Pick the inverse regularization strength with the lowest log loss on a held-out part of the fit split.

    Log loss and not accuracy, because interventions are judged by probabilities: an overconfident probe
    would hide what an edit does to them.

    Returns
    -------
    c
        The chosen one; the first where no picture can be held out.
    losses
        Log loss by C; empty where no picture can be held out.
    """
    held_out = held_out_rows(classes, seed)
    if not held_out.any() or len(settings.c_values) == 1:
        return settings.c_values[0], {}
    fit, judged = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    losses = {}
    for c in settings.c_values:
        weight, bias = solver(features, fit, classes, c, settings.max_iterations, device or torch.device("cpu"))
        losses[c] = _log_loss(features, judged, classes, weight, bias)
    return min(losses, key=lambda c: losses[c]), losses


def held_out_rows(classes: np.ndarray, seed: int, share: float = 0.2) -> np.ndarray:
    """Which pictures are held out, bool (n,): a share of each class, by chance, but never its last picture."""
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(classes), dtype=bool)
    for rows in np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1]):
        # Of few pictures the share is no whole number: chance decides, so that small classes are judged too.
        wanted = min(int(share * len(rows) + generator.random()), len(rows) - 1)
        held_out[generator.permutation(rows)[: max(wanted, 0)]] = True
    return held_out


def _log_loss(
    features: np.ndarray, rows: np.ndarray, classes: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> float:
    """Mean negative log probability of the true classes."""
    total = 0.0
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        logits = torch.from_numpy(features[piece] @ weight.T + bias)
        total += float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(classes[piece]), reduction="sum"))
    return total / len(rows)


def _moments(features: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over some rows, in two readings."""
    pieces = [rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE)]
    mean = sum(features[piece].sum(axis=0, dtype=np.float64) for piece in pieces) / len(rows)
    squares = sum(np.square(features[piece] - mean).sum(axis=0) for piece in pieces)
    return mean, _scale(np.sqrt(squares / len(rows)))


def _scale(deviation: np.ndarray) -> np.ndarray:
    """What features are divided by: 1 for those that never vary."""
    return np.where(deviation > 0, deviation, 1.0)


def _unstandardized(weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Weights:
    weight = weight / scale
    return weight, bias - weight @ mean
