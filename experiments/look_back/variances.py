"""The exact variance that look-backs add to the gradient of a window, by law and by row.

One look-back for all rows has the variance Σ_j (1/S(j) − 1/S(j−1)) ‖Σ_b R_j^b‖².

Instead, a random subset N_j of exactly B·S(j) rows can go beyond the j-th edge, N_j drawn from
N_{j−1}, with the factor 1/S(j). Given N_1, …, N_j, the estimate has the expectation

    M_j = Σ_{i<j} Σ_{b∈N_i} G_i^b/S(i) + Σ_{b∈N_j} R_j^b/S(j)

It changes at edge j by 1/S(j) times a sum over n_j = B·S(j) of n_{j−1} rows, drawn without
replacement, minus its mean. Such a sum of vectors R^b has the variance n_j (1 − n_j/n_{j−1}) s²,
where s² is the variance of the R^b over N_{j−1} with divisor n_{j−1} − 1. The mean of s² over
N_{j−1} is that of all rows, so that

    variance = Σ_j (1/S(j) − 1/S(j−1)) · B/(B − 1) · Σ_b ‖R_j^b − mean_b R_j^b‖²

Where B·S(j) < 1, one row at most goes on, with probability S(j)/S(j−1), and its term has
Σ_b ‖R_j^b‖² instead. So the subset saves what the rows have in common. If the R_j^b are independent
with mean zero, it saves nothing.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

import artbp
from artbp import diagnostics, truncation
from artbp.diagnostics.interval import jackknife_error, student_t_quantile
from experiments.common.report import Row
from experiments.look_back.config import Text, rows_beyond
from experiments.look_back.gradients import remainders_by_row

LAWS = ("optimal", "geometric", "polynomial, α = 4")


def make_law(name: str, extra_work: float, profile: np.ndarray) -> truncation.TruncationLaw:
    """Makes a law with Σ_{j≥1} S(j) = extra_work; the optimal one is fitted to the profile."""
    if name == "optimal":
        return truncation.optimal_look_back(profile, extra_work=extra_work)
    if name == "geometric":
        return truncation.geometric(1 + extra_work)
    return truncation.polynomial(1 + extra_work, 4)


def subset_variance(
    law: truncation.TruncationLaw, shared: np.ndarray, within: np.ndarray, batch: int
) -> float:
    """Computes the variance of the subset of the rows, see the top of this file.

    shared, within: ‖Σ_b R_j^b‖² and Σ_b ‖R_j^b‖² for j = 1, …, J. Raises ConfigError for numbers
    of rows B·S(j) that are not integers down to 1.
    """
    survival = law.survival(np.arange(len(shared) + 1))
    is_subset = rows_beyond(law, batch, len(shared))[1:] >= 1
    centred = (within - shared / batch) * batch / (batch - 1)
    return float(np.sum(np.diff(1 / survival) * np.where(is_subset, centred, within)))


def chains(law: truncation.TruncationLaw, batch: int) -> tuple[float, float]:
    """Counts the windows backward in sequence of an update, on average: (one look-back, subset)."""
    survival = law.survival(np.arange(1, 10_000))
    return 1 + float(survival.sum()), 1 + float(np.minimum(batch * survival, 1).sum())


def measure(config: Any, text: Text, updates: int, params: Any) -> list[Row]:
    """Measures a model: laws are fitted on the first windows and tested on those after them."""
    length, older, count = config.truncation_length, config.older_windows, config.num_windows
    history, before = config.history * length, (config.history + older) * length
    start = text.model.initial_carry(params, config.batch)
    carry, _ = artbp.unroll(text.model.cell, params, start, text.xs[:history])
    fitted = slice(history, before + count * length)
    profile = diagnostics.look_back_profile(
        *(text.model.cell, text.model.loss_fn, params, carry),
        artbp.Stream(text.xs[fitted], text.targets[fitted]),
        truncation_length=length,
        num_windows=older,
        num_samples=count,
    )
    of_window = jax.jit(partial(remainders_by_row, text.model, older=older))
    found = []
    for at in before + length * (count + np.arange(count)):
        xs = text.xs[at - before : at + length].reshape(-1, length, config.batch)
        found.append(of_window(params, xs, text.targets[at : at + length]))
    gradients, shared, within = (np.array(part, np.float64) for part in zip(*found, strict=True))
    shared, within = shared[:, 1:], within[:, 1:]
    data = float(np.sum(gradients.var(axis=0, ddof=1)))
    square = float(np.mean(np.sum(gradients**2, axis=1)))

    def variance(law: truncation.TruncationLaw) -> np.ndarray:
        """Of one look-back for all rows, in each tested window."""
        return np.array([truncation.look_back_variance(law, one) for one in shared])

    base: Row = {"updates": updates, "data_noise": float(np.sqrt(data / square))}
    law = truncation.geometric(1 / config.hazard)
    pairs = zip(shared, within, strict=True)
    one, subset = variance(law), np.array([subset_variance(law, *p, config.batch) for p in pairs])
    row = {"part": "rows", **base, "shared": one.mean() / data, "subset": subset.mean() / data}
    row |= {"ratio": ratio(one, subset), "chains": chains(law, config.batch)}
    rows = [row | {"profile": (shared.mean(0) / data).tolist()}]
    for work in config.extra_works:
        made = {name: variance(make_law(name, work, profile.remainders)) for name in LAWS}
        for name, found in made.items():
            row = {"part": "laws", **base, "extra_work": work, "law": name}
            row |= {"variance": found.mean() / data, "ratio": ratio(found, made["optimal"])}
            rows.append(row)
    return rows


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """Returns Σ above ÷ Σ below, with the half-width of its 95 % interval over windows."""
    left_out = (above.sum() - above) / (below.sum() - below)
    quantile = student_t_quantile(0.95, len(above) - 1)
    return float(above.sum() / below.sum()), float(quantile * jackknife_error(left_out))
