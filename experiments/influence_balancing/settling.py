"""Study "settling": under a noisy drive the loss cannot vanish, and a bias shows as a wrong θ.

Without noise, every gradient of the right sign ends at the same θ*. With noise, each estimator has
its own fixed point. It is predicted in closed form, and compared with what training finds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.common.figures import colors
from experiments.common.report import Column, Report, Row, table
from experiments.influence_balancing import outcomes, predictions
from experiments.influence_balancing.curves import draw_curves
from experiments.influence_balancing.training import Run

_SETTLED, _ELSEWHERE = "at the predicted θ", "not at the predicted θ"
_STILL_MOVING = "still moving"


def report(config: Any, runs: Sequence[Run]) -> Report:
    """One row per arm, its curves, and the figure of θ, with the predictions as diamonds."""
    rows = [row for run in runs for row in rows_of(config, run)]
    edges, optimum, ylim = runs[0].edges, rows[0]["optimum"], (-0.16, 0.16)
    drawn, axes = draw_curves(
        edges,
        [(run.arm, run.theta, words([row])) for run, row in zip(runs, rows, strict=True)],
        title="Where the loss cannot vanish, a biased gradient settles on a wrong θ",
        subtitle=f"Influence balancing with a noisy drive, σ = {config.drive_noise:g}. "
        f"Lines: median of {config.num_keys} keys; bands: quartiles.\n"
        "Diamonds: where each gradient vanishes on average, predicted in closed form.",
        mark=(optimum, f"optimum θ* = {optimum:.4f}".replace("-", "−")),
        xlabel="time step t",
        ylabel="θ",
        xlim=(min(1000, edges[-1] / 10), edges[-1]),
        ylim=ylim,
    )
    for color, row in zip(colors([run.arm for run in runs]).values(), rows, strict=True):
        theta = row["predicted_theta"]
        if theta is not None and ylim[0] < theta < ylim[1]:
            style: Any = {"markersize": 7, "markeredgecolor": "white", "zorder": 5}
            axes.plot(edges[-1], theta, "D", color=color, clip_on=False, **style)
    curves = [row for run in runs for row in run.curves()]
    return Report(table(rows, COLUMNS, NOTE), rows, {"theta": drawn}, curves)


def words(rows: Sequence[Row]) -> str:
    """Where the keys of one arm are: "settles" only where it was predicted and is seen."""
    (row,) = rows
    outcome, theta = row["outcome"], row["predicted_theta"]
    mean = f"{row['mean_theta']:.3f}".replace("-", "−")
    if outcome == _STILL_MOVING:
        return f"at θ ≈ {mean}, still moving, as predicted"
    predicted = "to run away" if theta is None else f"{theta:.3f}".replace("-", "−")
    place = f"{'settles at' if outcome == _SETTLED else 'at θ ≈'} {mean}"
    return f"{'diverged' if outcome == outcomes.DIVERGED else place} (predicted {predicted})"


def late_theta(run: Run) -> np.ndarray:
    """Mean θ of each key over the second half of its time steps, [keys]; steadier than the last."""
    late = run.edges[:-1] >= run.edges[-1] / 2
    late[-1] = True
    return np.average(run.theta[:, late], axis=1, weights=np.diff(run.edges)[late])


def rows_of(config: Any, run: Run) -> list[Row]:
    """One row: the predicted and the observed θ."""
    optimum = predictions.optimum(config.drive_noise)
    predicted = predictions.fixed_point(run.arm, config.drive_noise)
    theta = late_theta(run)
    place = {"theta_0": config.theta_0, "optimum": optimum, "tolerance": config.tolerance}
    labels = outcomes.classify(theta, **place)
    stayed = theta[labels != outcomes.DIVERGED]
    mean = float(stayed.mean()) if len(stayed) else float("nan")
    error = float(stayed.std(ddof=1) / np.sqrt(len(stayed))) if len(stayed) > 1 else float("nan")
    if len(stayed) <= len(theta) / 2:
        outcome = outcomes.DIVERGED
    elif not predicted.stable:
        outcome = _STILL_MOVING
    elif abs(mean - predicted.theta) < max(config.tolerance, 3 * np.nan_to_num(error)):
        outcome = _SETTLED
    else:
        outcome = _ELSEWHERE
    losses = predictions.expected_loss(np.array([optimum, mean]), config.drive_noise).tolist()
    row = run.row(config) | {"num_keys": len(theta), "outcome": outcome, "optimum": optimum}
    row["predicted_theta"] = predicted.theta if predicted.stable else None
    row["share_diverged"] = 1 - len(stayed) / len(theta)
    row |= {"mean_theta": mean, "standard_error": error}
    return [row | {"loss_at_optimum": losses[0], "loss_at_mean_theta": losses[1]}]


def _prediction(row: Row) -> str:
    theta = row["predicted_theta"]
    return "none: runs away" if theta is None else f"{theta:.4f}"


def _if_any_stayed(form: str) -> Any:
    return lambda row: form.format_map(row) if row["share_diverged"] < 1 else "–"


COLUMNS: list[Column] = [
    ("method", "{label}"),
    ("keys", "{num_keys}"),
    ("diverged", "{share_diverged:.1%}"),
    ("θ predicted", _prediction),
    ("outcome", "{outcome}"),
    ("mean θ ± standard error", _if_any_stayed("{mean_theta:.4f} ± {standard_error:.4f}")),
    ("optimum θ\\*", "{optimum:.4f}"),
    ("expected loss at the mean θ", _if_any_stayed("{loss_at_mean_theta:.4f}")),
    ("at the optimum", "{loss_at_optimum:.4f}"),
    ("time steps per second, all keys", "{steps_per_second:,.0f}"),
]

NOTE = (
    "Mean θ: over the second half of the time steps, without the keys that diverged. At the "
    "predicted θ: within three standard errors of it, or the tolerance. Where no fixed point is "
    "predicted, a key that has not diverged is still moving."
)
