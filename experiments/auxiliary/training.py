"""Trains an LSTM with and without auxiliary losses, and measures its accuracy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp.cells import lstm
from experiments.auxiliary.problems import PROBLEMS, Problem, make_stream, side_by_side
from experiments.common.devices import OverRuns
from experiments.common.divergence import all_finite
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, split
from experiments.common.whole_run import train_whole
from experiments.tasks import losses


class Arm(NamedTuple):
    """A truncation of the main loss, and an auxiliary loss.

    Attributes:
      window: of `artbp.contrib.with_auxiliary_loss`; None without auxiliary losses.
    """

    is_short: bool
    window: Any
    label: str


_WINDOWS = {None: "no auxiliary loss", "before": "reconstruction (r)", "after": "prediction (p)"}
ARMS = [Arm(is_short, *one) for is_short in (False, True) for one in _WINDOWS.items()]


class Training:
    """The trainings of one arm on one problem."""

    def __init__(self, problem: Problem, arm: Arm, config: Any, anchor_key: jax.Array):
        self.problem, self.arm, self.config = problem, arm, config
        self.anchor_key = anchor_key
        cell, loss_fn = lstm.with_params(lambda params: params["cell"]), losses.cross_entropy
        estimator = artbp.tbptt(
            cell,
            loss_fn,
            truncation_length=config.short_window if arm.is_short else problem.length,
            normalizer=float(config.batch),
        )
        if arm.window:
            estimator = artbp.contrib.with_auxiliary_loss(
                estimator,
                cell,
                lstm.with_params(lambda both: both[1]["cell"]),
                lambda both, y, symbol: losses.cross_entropy(both[1], y, symbol),
                window=arm.window,
                window_length=config.window_length,
                truncation_length=config.auxiliary_truncation,
                anchor_every=problem.length,
                weight=config.weight,
                normalizer=float(config.batch),
            )
        self.estimator = estimator
        self._train = OverRuns(jax.vmap(self._train_one), in_axes=(0, 0, 0, 0))

    def init(self, rng_key: jax.Array) -> Any:
        """The params, with the same main network for all arms of a key."""
        keys, size = jax.random.split(rng_key, (2, 2)), self.config.hidden_size

        def network(keys: jax.Array, outputs: int) -> Any:
            return {
                "cell": lstm.init(keys[0], self.problem.num_symbols, size),
                "readout": losses.init_readout(keys[1], size, outputs),
            }

        main = network(keys[0], self.problem.num_classes)
        if not self.arm.window:
            return main
        return main, network(keys[1], self.problem.num_symbols)

    def train(self, rates: Any, rng_keys: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """(main losses of the last quarter, test accuracies) of runs with these rates and keys.

        They run side by side, with the same anchors. `rng_keys` [runs, 3] are those of `make_keys`.
        """
        problem, config = self.problem, self.config
        number = config.num_sequences * config.batch
        init_keys, data_keys, test_keys = rng_keys.T
        data = [side_by_side(problem, problem.draw(key, number), config.batch) for key in data_keys]
        tests = [problem.test(key) for key in test_keys]
        data, tests = (jax.tree.map(lambda *one: np.stack(one), *all) for all in (data, tests))
        found = self._train(jnp.asarray(rates), jax.vmap(self.init)(init_keys), data, tests)
        loss, accuracy = (np.asarray(one, np.float64) for one in found)
        return loss, accuracy

    def _train_one(self, rate: Any, params: Any, data: Any, test: Any) -> Any:
        """(the main loss of the last quarter, the test accuracy)."""
        length, number = self.problem.length, self.config.num_sequences
        edges = np.array([0, 3 * number // 4 * length, number * length])
        carry = lstm.initial_carry(self._main(params)["cell"], self.config.batch)
        given = rate, params, carry, make_stream(self.problem, *data), self.anchor_key
        result = train_whole(self.estimator, optax.adam, *given, edges=edges)
        return result.loss[-1], accuracy(self._main(result.params), *test)

    def _main(self, params: Any) -> Any:
        """The params of the network that classifies."""
        return params[0] if self.arm.window else params


def accuracy(params: Any, symbols: jax.Array, classes: jax.Array) -> jax.Array:
    """The share of sequences that are classified right; NaN for params with NaN."""
    carry = lstm.initial_carry(params["cell"], symbols.shape[1])
    _, ys = artbp.unroll(lstm, params["cell"], carry, symbols)
    right = jnp.argmax(losses.readout(params, ys[-1]), axis=-1) == classes
    return jnp.where(all_finite(params), jnp.mean(right), jnp.nan)


def make_keys(config: Any) -> tuple[jax.Array, jax.Array]:
    """(the key of all anchors, keys [runs, 3] of first params, training data and test data).

    All differ: a key that served for two of them would tie the first weights to the symbols.
    """
    anchor_key, runs_key = jax.random.split(jax.random.key(config.seed))
    return anchor_key, jax.random.split(runs_key, (config.num_tuning_runs + config.num_seeds, 3))


def run(config: Any, say: Say) -> list[Row]:
    """A row for each problem and arm."""
    rows, rates = [], config.learning_rates
    anchor_key, keys = make_keys(config)
    tuning, reported = split(keys, config)
    for name in config.problems:
        alone = np.zeros(config.num_seeds)
        for arm in ARMS:
            training = Training(PROBLEMS[name], arm, config, anchor_key)
            tuned = [training.train(rates, jnp.stack([key] * len(rates)))[0] for key in tuning]
            choice = choose_rate(rates, tuned)
            loss, found = training.train([choice.rate] * len(reported), reported)
            row = {"problem": name, "is_short": arm.is_short, "window": arm.window}
            row |= {"label": arm.label, "learning_rate": choice.rate}
            row |= {"rate_at_edge": choice.at_edge, "tuning_loss": choice.scores}
            row |= {"loss": loss.tolist(), "accuracy": found.tolist()}
            truncation = f"TBPTT {config.short_window}" if arm.is_short else "full BPTT"
            row["truncation"] = truncation
            say(f"{PROBLEMS[name].label}, {truncation}, {arm.label}: accuracy {found.mean():.1%}")
            alone = found if arm.window is None else alone
            row["gain"] = (found - alone).tolist()
            rows.append(row)
    return rows
