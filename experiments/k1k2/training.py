"""From an arm to its curves: some runs choose its learning rate, the others are reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.pool import in_threads
from experiments.common.whole_run import train_whole
from experiments.k1k2.config import Arm
from experiments.k1k2.texts import Texts, run_keys
from experiments.ptb.model import CharacterModel, bits, character_model


class Runs(NamedTuple):
    """An arm, trained.

    Attributes:
        arm: what was trained.
        tuning: [rates], bits per character over the last quarter of the tuning runs, their mean.
        learning_rate: the best of them.
        curves: [seeds, bins], bits per character at that rate, as the text streams by.
        held_out: [seeds], bits per character on held-out text with the weights of the end.
        num_updates: of one run.
    """

    arm: Arm
    tuning: np.ndarray
    learning_rate: float
    curves: np.ndarray
    held_out: np.ndarray
    num_updates: int

    @property
    def last_quarter(self) -> np.ndarray:
        """[seeds], bits per character over the last quarter of the time steps."""
        return last_quarter(self.curves)

    def tuning_by_rate(self, config: Any) -> dict[float, float]:
        """{learning rate: bits per character of the tuning runs}."""
        return dict(zip(config.learning_rates, self.tuning.tolist(), strict=True))


def last_quarter(curves: np.ndarray) -> np.ndarray:
    """The mean over the last quarter of the bins, which are equally long; [..., bins] -> [...]."""
    return curves[..., -(curves.shape[-1] // 4) :].mean(-1)


def bin_edges(config: Any) -> np.ndarray:
    """The time steps that bound the bins of a curve."""
    return np.linspace(0, config.num_steps, config.num_bins + 1).round().astype(int)


def make_estimator(arm: Arm, model: CharacterModel, batch: int) -> artbp.GradientEstimator:
    """Its gradients are those of the mean loss of the k1 new steps."""
    return artbp.tbptt_k1_k2(
        model.cell,
        model.loss_fn,
        k1=arm.k1,
        k2=arm.k2,
        mode=arm.mode,
        normalizer=float(arm.k1 * batch),
    )


def train_arm(config: Any, texts: Texts, arm: Arm, first_params: Any) -> Runs:
    """Tunes the learning rate on the first runs, and trains the others with it.

    Args:
        config, texts: of the experiment.
        arm: what to train.
        first_params: the weights that each run begins with, `[runs, ...]`.
    """
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    estimator = make_estimator(arm, model, config.batch)
    edges = bin_edges(config)
    held_out = tuple(map(jnp.asarray, texts.held_out))

    @jax.jit
    @jax.vmap
    def train(rate: Any, params: Any, xs: Any, targets: Any) -> tuple[Any, Any, Any]:
        carry = model.initial_carry(params, config.batch)
        stream = artbp.Stream(xs, targets)
        unused = jax.random.key(0)  # nothing is drawn
        run = train_whole(estimator, optax.adam, rate, params, carry, stream, unused, edges=edges)
        _, ys = artbp.unroll(model.cell, run.params, carry, held_out[0])
        held_out_loss = jnp.mean(model.loss_fn(run.params, ys, held_out[1]))
        return run.loss, held_out_loss, run.num_updates

    def train_rows(rates: Sequence[float], indices: Sequence[int]) -> tuple[Any, Any, Any]:
        """One row for each pair of a rate and a run."""
        xs, targets = (np.stack([texts.runs[i][part] for i in indices]) for part in (0, 1))
        params = jax.tree.map(lambda leaf: leaf[np.array(indices)], first_params)
        curves, held_out_loss, count = train(jnp.array(rates), params, xs, targets)
        per_nat = bits(1.0)
        return per_nat * np.asarray(curves), per_nat * np.asarray(held_out_loss), int(count[0])

    rates, num_tuning_runs = config.learning_rates, config.num_tuning_runs
    curves = [train_rows(rates, [run] * len(rates))[0] for run in range(num_tuning_runs)]
    tuning = last_quarter(np.mean(curves, axis=0))
    best = rates[int(np.argmin(np.where(np.isnan(tuning), np.inf, tuning)))]
    seeds = range(num_tuning_runs, num_tuning_runs + config.num_seeds)
    curves, held_out_loss, count = train_rows([best] * len(seeds), seeds)
    return Runs(arm, tuning, best, curves, held_out_loss, count)


def train_all(
    config: Any, texts: Texts, arms: Sequence[Arm], say: Callable[[str], None]
) -> list[Runs]:
    """Trains every arm, `num_threads` at a time.

    Raises:
        TrainingInterruptedError: Ctrl-C.
    """

    # Here and not in the threads: in JAX 0.10, two programs at the same time that each make a batch
    # of orthogonal matrices can wait for each other for ever on two cores.
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    first_params = jax.block_until_ready(jax.vmap(model.init)(run_keys(config)))

    def train(arm: Arm) -> Runs:
        runs = train_arm(config, texts, arm, first_params)
        loss = runs.last_quarter.mean()
        say(f"TBPTT({arm.k1}, {arm.k2}), {arm.mode}: {loss:.3f} bits per character")
        return runs

    # The longest first, so that no thread is left with one at the end.
    order = sorted(arms, key=lambda arm: -arm.k2 / arm.k1)
    trained = dict(zip(order, in_threads(train, order, config.num_threads), strict=True))
    return [trained[arm] for arm in arms]
