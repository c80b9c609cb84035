"""Study "settling": under a noisy drive the loss cannot vanish, and a bias shows as a wrong θ.

Without noise, every gradient of the right sign ends at the same θ*, where it is zero. With the
drive x_t = 1 + σ ε_t, each way to truncate has a resting place of its own; `predictions` has them
in closed form, and this study sets them beside what training finds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common.figures import save
from experiments.common.metrics import MetricsWriter
from experiments.common.report import Column, Row, write_results
from experiments.common.workdir import Workdir
from experiments.influence_balancing import figures, methods, outcomes, predictions, report, runs

# What became of the keys; most of them no longer finite or far off: outcomes.DIVERGED.
_SETTLED = "at the predicted θ"
_ELSEWHERE = "not at the predicted θ"
_STILL_MOVING = "still moving"
_NOTE = (
    "Mean θ: over the second half of the time steps, keys that diverged left out. At the "
    "predicted θ: within three standard errors of it, or the tolerance. Where no resting place is "
    "predicted, a key that has not diverged is still moving."
)


def run(config: Any, workdir: Workdir, say: Callable[[str], None]) -> str:
    """Writes theta.png, theta.svg, table.md, results.json and metrics.

    Returns:
        The table: predicted and observed resting place of each method.
    """
    trained = runs.train_all(
        config,
        [methods.parse(name) for name in config.methods],
        eta_0=(config.eta_0,),
        schedules=(config.schedule,),
        describe=lambda method_run: words(_row(config, method_run)),
        say=say,
    )
    rows = [_row(config, method_run) for method_run in trained]
    with MetricsWriter(workdir.metrics_path) as writer:
        for method_run, row in zip(trained, rows, strict=True):
            report.write_curves(writer, method_run)
            writer.write({"kind": "result", **row})
    save(_figure(config, trained, rows), workdir.path / "theta.png")
    return write_results(workdir.path, rows, _columns(), _NOTE)


def late_theta(run_: runs.Run) -> np.ndarray:
    """Mean θ of each key over the second half of its time steps, [keys]; steadier than the last."""
    late = run_.edges[:-1] >= run_.num_steps / 2
    late[-1] = True
    return np.average(run_.history.theta[:, late], axis=1, weights=np.diff(run_.edges)[late])


def _row(config: Any, run_: runs.Run) -> Row:
    def loss_at(theta: float) -> float:
        return float(predictions.expected_loss(np.asarray(theta), config.drive_noise))

    optimum = predictions.optimum(config.drive_noise)
    predicted = predictions.fixed_point(run_.method, config.drive_noise)
    theta = late_theta(run_)
    labels = outcomes.classify(
        theta, theta_0=config.theta_0, optimum=optimum, tolerance=config.tolerance
    )
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
    return {
        "method": run_.method.name,
        "label": run_.method.label,
        "drive_noise": config.drive_noise,
        "eta_0": config.eta_0,
        "schedule": config.schedule,
        "num_keys": len(theta),
        "num_steps": run_.num_steps,
        "outcome": outcome,
        "optimum": optimum,
        "predicted_theta": predicted.theta if predicted.stable else None,
        "mean_theta": mean,
        "standard_error": error,
        "share_diverged": 1 - len(stayed) / len(theta),
        "loss_at_optimum": loss_at(optimum),
        "loss_at_mean_theta": loss_at(mean),
        **report.timing_fields(run_),
    }


def _columns() -> tuple[Column, ...]:
    def predicted(row: Row) -> str:
        theta = row["predicted_theta"]
        return "none: runs away" if theta is None else f"{theta:.4f}"

    def mean(row: Row) -> str:
        if not np.isfinite(row["mean_theta"]):
            return "–"
        return f"{row['mean_theta']:.4f} ± {row['standard_error']:.4f}"

    def loss_there(row: Row) -> str:
        loss = row["loss_at_mean_theta"]
        return f"{loss:.4f}" if np.isfinite(loss) else "–"

    return (
        ("method", lambda row: row["label"]),
        ("keys", lambda row: str(row["num_keys"])),
        ("diverged", lambda row: f"{row['share_diverged']:.1%}"),
        ("θ predicted", predicted),
        ("outcome", lambda row: row["outcome"]),
        ("mean θ ± standard error", mean),
        ("optimum θ\\*", lambda row: f"{row['optimum']:.4f}"),
        ("expected loss at the mean θ", loss_there),
        ("at the optimum", lambda row: f"{row['loss_at_optimum']:.4f}"),
        ("time steps per second, all keys", lambda row: f"{row['steps_per_second']:,.0f}"),
    )


def words(row: Row) -> str:
    """Where the keys of one row are: "settles" only where it was predicted and is seen."""
    predicted = row["predicted_theta"]
    if row["outcome"] == _STILL_MOVING:
        return f"at θ ≈ {_number(row['mean_theta'])}, still moving, as predicted"
    prediction = "to run away" if predicted is None else _number(predicted)
    if row["outcome"] == outcomes.DIVERGED:
        return f"diverged (predicted {prediction})"
    place = "settles at" if row["outcome"] == _SETTLED else "at θ ≈"
    return f"{place} {_number(row['mean_theta'])} (predicted {prediction})"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _figure(config: Any, trained: Sequence[runs.Run], rows: Sequence[Row]) -> Any:
    lines = []
    for run_, row in zip(trained, rows, strict=True):
        lines.append(
            figures.Line(
                label=run_.method.label,
                detail=words(row),
                values=run_.history.theta,
                emphasis=run_.method.compensate,
                dashed=run_.method.is_random and not run_.method.compensate,
            )
        )
    return figures.theta_figure(
        trained[0].edges,
        lines,
        title="Where the loss cannot vanish, a biased gradient settles on a wrong θ",
        subtitle=f"Influence balancing with a noisy drive, σ = {config.drive_noise:g}. "
        f"Lines: median of {config.num_keys} keys; bands: quartiles.\n"
        "Diamonds: where each gradient vanishes on average, predicted in closed form.",
        x_start=1000,
        y_range=(-0.16, 0.16),
        predicted=[row["predicted_theta"] for row in rows],
        optimum=rows[0]["optimum"],
    )
