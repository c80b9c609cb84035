"""Gives each run a slice of text, trains an arm on them, and measures what its updates cost.

Some runs choose the learning rate of an arm, the others are reported.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common import tuning
from experiments.common.arms import Arm
from experiments.common.devices import OverRuns
from experiments.common.errors import ConfigError
from experiments.common.pool import in_threads
from experiments.common.study import Say
from experiments.common.tuning import Choice, choose_rate
from experiments.common.whole_run import train_whole
from experiments.ptb.data import batch_rows
from experiments.ptb.found_text import FoundText, find_text
from experiments.ptb.model import CharacterModel, bits, character_model


class Texts(NamedTuple):
    """Symbols of the text `found` for all runs: (xs, targets), int32 [num_steps, batch] each.

    No two runs share a symbol. `held_out` has held_out_steps from the validation split.
    """

    found: FoundText
    runs: list[tuple[np.ndarray, np.ndarray]]
    held_out: tuple[np.ndarray, np.ndarray]

    @property
    def num_symbols(self) -> int:
        """How many different symbols the text has."""
        return len(self.found.corpus.vocabulary)


class Runs(NamedTuple):
    """An arm, trained. Numbers are bits per character; `num_updates` is that of one run.

    Attributes:
        choice: its learning rate, by the last quarter of the tuning runs.
        curves: [seeds, bins] at that rate, as the text streams by.
        held_out: [seeds], on held-out text with the final weights.
    """

    arm: Arm
    choice: Choice
    curves: np.ndarray
    held_out: np.ndarray
    num_updates: int

    @property
    def last_quarter(self) -> np.ndarray:
        """[seeds], over the last quarter of the time steps."""
        return last_quarter(self.curves)


def read_texts(config: Any) -> Texts:
    """Returns the slices of text: some to tune on, then one for each seed.

    Raises ConfigError for a text that is too short, and DataError for a folder of Penn Treebank
    that does not hold it.
    """
    num_runs = config.num_tuning_runs + config.num_seeds
    # Generated text has a tenth as much held-out text as training text.
    steps = max(num_runs * config.num_steps, 10 * config.held_out_steps) + 2
    found = find_text(config.seed, config.batch * steps, config.data_dir)

    def rows(split: str, num_steps: int, fewer: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first `num_steps` steps of a split that is read in `batch` rows."""
        symbols = getattr(found.corpus, split)
        xs, targets, _ = batch_rows(symbols, config.batch)
        if len(xs) < num_steps:
            raise ConfigError(
                f"The {split} text has {len(symbols)} symbols, or {len(xs)} time steps in batch = "
                f"{config.batch} rows: {num_steps} are needed. Give a smaller batch, or lower "
                f"{fewer}."
            )
        return xs[:num_steps], targets[:num_steps]

    pair = rows("train", num_runs * config.num_steps, "num_steps or num_seeds")
    runs = list(zip(*(np.split(part, num_runs) for part in pair), strict=True))
    held_out = rows("valid", config.held_out_steps, "held_out_steps")
    return Texts(found, runs, held_out)


def last_quarter(curves: np.ndarray) -> np.ndarray:
    """Averages over the last quarter of the bins, which are equally long; [..., bins] -> [...]."""
    return curves[..., -(curves.shape[-1] // 4) :].mean(-1)


def bin_edges(config: Any) -> np.ndarray:
    """Returns the time steps that bound the bins of a curve."""
    return np.linspace(0, config.num_steps, config.num_bins + 1).round().astype(int)


def make_estimator(arm: Arm, model: CharacterModel, batch: int) -> artbp.GradientEstimator:
    """Makes an estimator of the gradient of the mean loss over the k1 new steps."""
    return arm.build(model.cell, model.loss_fn, normalizer=float(arm.length * batch))


def train_arm(config: Any, texts: Texts, arm: Arm, first_params: Any) -> Runs:
    """Tunes the learning rate on the first runs, and trains the others with it.

    `first_params`, `[runs, ...]`, are the weights that each run begins with.
    """
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    estimator = make_estimator(arm, model, config.batch)
    edges, held_out = bin_edges(config), tuple(map(jnp.asarray, texts.held_out))

    def train(rate: Any, params: Any, xs: Any, targets: Any) -> tuple[Any, Any, Any]:
        carry = model.initial_carry(params, config.batch)
        # The key is not used: these arms draw no random numbers.
        given = params, carry, artbp.Stream(xs, targets), jax.random.key(0)
        run = train_whole(estimator, arm.optimizer, rate, *given, edges=edges)
        _, ys = artbp.unroll(model.cell, run.params, carry, held_out[0])
        held_out_loss = jnp.mean(model.loss_fn(run.params, ys, held_out[1]))
        return run.loss, held_out_loss, run.num_updates

    train_runs = OverRuns(jax.vmap(train), in_axes=(0, 0, 0, 0))

    def train_all_of(rates: Sequence[float], indices: Sequence[int]) -> tuple[Any, Any, Any]:
        """Does one training for each pair of a rate and a run."""
        xs, targets = (np.stack([texts.runs[i][part] for i in indices]) for part in (0, 1))
        params = jax.tree.map(lambda leaf: leaf[np.array(indices)], first_params)
        *losses, count = train_runs(jnp.array(rates), params, xs, targets)
        curves, held_out_bits = (bits(1.0) * np.asarray(loss) for loss in losses)
        return curves, held_out_bits, int(count[0])

    rates = config.learning_rates
    tuning_runs, seeds = tuning.split(range(len(texts.runs)), config)
    curves = [train_all_of(rates, [run] * len(rates))[0] for run in tuning_runs]
    choice = choose_rate(rates, last_quarter(np.array(curves)))
    return Runs(arm, choice, *train_all_of([choice.rate] * len(seeds), seeds))


def train_all(config: Any, texts: Texts, arms: Sequence[Arm], say: Say) -> list[Runs]:
    """Trains every arm, `num_threads` at a time."""
    # Here and not in the threads, see `in_threads`.
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    first_params = jax.block_until_ready(jax.vmap(model.init)(tuning.run_keys(config)))
    trained = in_threads(
        lambda arm: train_arm(config, texts, arm, first_params),
        arms,
        config.num_threads,
        expense=lambda arm: arm.chain,
        say=say,
        words=lambda arm, runs: (
            f"{arm.text}: {runs.last_quarter.mean():.3f} bits per character{runs.choice.warning}"
        ),
    )
    return list(trained)


def seconds_per_update(config: Any, texts: Texts, arms: Sequence[Arm]) -> np.ndarray:
    """Measures the seconds, [rounds, arms], one run at a time, without compilation.

    Arms take turns within a round, because the speed of a shared machine changes: the numbers of a
    round were measured within the same seconds, and can be compared.
    """
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    num_steps = min(config.timing_steps, config.num_steps)
    edges, key = np.array([0, num_steps]), tuning.run_keys(config)[0]
    xs, targets = (jax.device_put(array[:num_steps]) for array in texts.runs[0])

    def compile_arm(arm: Arm) -> Any:
        estimator = make_estimator(arm, model, config.batch)

        def train(xs: Any, targets: Any) -> Any:
            params = model.init(key)
            carry = model.initial_carry(params, config.batch)
            given = params, carry, artbp.Stream(xs, targets), key
            return train_whole(estimator, optax.adam, 1e-3, *given, edges=edges).num_updates

        return jax.jit(train).lower(xs, targets).compile()

    programs = [compile_arm(arm) for arm in arms]
    for program in programs:
        jax.block_until_ready(program(xs, targets))
    seconds = np.empty((config.timing_rounds, len(arms)))
    for times in seconds:
        for i, program in enumerate(programs):
            started = time.perf_counter()
            num_updates = int(program(xs, targets))
            times[i] = (time.perf_counter() - started) / num_updates
    return seconds
