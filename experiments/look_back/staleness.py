"""Trains by unbiased TBPTT, and measures the errors of its gradient estimates on the live state.

The reference g = G_0 + R_1 is the gradient of the next window, G_0 through the window itself and
R_1 through the older ones, all run with the present params (`gradients`). The errors are

    truncation   G_0 − g = −R_1         the error of TBPTT with the present params everywhere
    carry        G_0' − G_0             older params computed the carry that enters the window
    stored       (g' − G_0') − R_1      older params ran the older windows, mode "stored"
    reforward    the same, mode "reforward"

where a prime marks what the estimator computes from the live state. g' is its mean over look-backs,
which `fixed(J + 1)` gives in one estimate. TBPTT has the errors truncation and carry, unbiased
TBPTT has carry and one of the last two.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import artbp
from artbp import truncation
from artbp.diagnostics.report_statistics import Jackknife
from experiments.common.report import Row
from experiments.look_back.config import Text
from experiments.look_back.gradients import through_windows
from experiments.ptb.model import bits

ERRORS = ("truncation", "carry", "stored", "reforward")


class Live(NamedTuple):
    """The state of a training between two updates."""

    params: Any
    opt_state: Any
    state: artbp.EstimatorState


class Training:
    """A training that can be run at several learning rates, compiled once."""

    def __init__(self, config: Any, text: Text) -> None:
        self.config, self.model = config, text.model
        self.stream = artbp.Stream(jnp.asarray(text.xs), jnp.asarray(text.targets))
        init_key, self.rng_key = jax.random.split(jax.random.key(config.seed))
        self.first_params = self.model.init(init_key)

    def run(self, rate: float) -> tuple[list[Row], dict[int, Any]]:
        """Trains, and measures from each point on.

        Returns one row for each point, and the params after its last measurement, by updates.
        """
        config, rows, params, done = self.config, [], {}, 0
        carry = self.model.initial_carry(self.first_params, config.batch)
        state = self.estimator().init(self.first_params, carry, rng_key=self.rng_key)
        live = Live(self.first_params, optax.adam(rate).init(self.first_params), state)
        for point in config.points:
            found = []
            for at in point + config.every * np.arange(config.num_windows):
                live = self.advance(live, self.stream, rate, np.int32(at - done))
                done = int(at)
                found.append(self.measure(live.params, live.state, self.stream))
            row = {"part": "staleness", "learning_rate": rate, "updates": point}
            rows.append(row | summary(jax.tree.map(lambda *leaves: np.stack(leaves), *found)))
            params[done] = live.params
        return rows, params

    def estimator(self, law: Any = None, mode: Any = "stored") -> artbp.GradientEstimator:
        """The estimator of the training, or another one that takes its state."""
        config = self.config
        return artbp.unbiased_tbptt(
            self.model.cell,
            self.model.loss_fn,
            truncation.geometric(1 / config.hazard) if law is None else law,
            truncation_length=config.truncation_length,
            mode=mode,
            normalizer=float(config.truncation_length * config.batch),
            stored_windows=config.older_windows,
            stored_carries=config.older_windows,
        )

    @partial(jax.jit, static_argnames="self")
    def advance(self, live: Live, stream: artbp.Stream, rate: Any, num_updates: Any) -> Live:
        """Makes a number of updates."""

        def update(_: Any, live: Live) -> Live:
            grads, state, _ = self.estimator().estimate(live.params, live.state, stream)
            updates, opt_state = optax.adam(rate).update(grads, live.opt_state)
            return Live(optax.apply_updates(live.params, updates), opt_state, state)

        return lax.fori_loop(0, num_updates, update, live)

    @partial(jax.jit, static_argnames="self")
    def measure(self, params: Any, state: Any, stream: artbp.Stream) -> dict[str, jax.Array]:
        """Computes g and the errors of the next window, `[P]` each, and its bits per character."""
        config, length = self.config, self.config.truncation_length
        before = (config.history + config.older_windows) * length
        xs = lax.dynamic_slice_in_dim(stream.xs, state.position - before, before + length)
        targets = lax.dynamic_slice_in_dim(stream.targets, state.position, length)
        given = xs.reshape(-1, length, config.batch), targets
        parts = through_windows(self.model, params, *given, older=config.older_windows)
        parts = parts / (length * config.batch)
        own, remainder = parts[0], jnp.sum(parts[1:], axis=0)

        def estimate(num_windows: int, mode: str, state: Any) -> tuple[jax.Array, Any]:
            estimator = self.estimator(truncation.fixed(num_windows), mode)
            grads, _, info = estimator.estimate(params, state, stream)
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)]), info

        # In mode "reforward" no residuals are stored: their buffer is scratch, of another size.
        again = self.estimator(mode="reforward").init(params, state.carry, rng_key=self.rng_key)
        inner = state.inner_state._replace(residuals=again.inner_state.residuals)
        live, info = estimate(1, "stored", state)
        stored, _ = estimate(config.older_windows + 1, "stored", state)
        reforward, _ = estimate(
            config.older_windows + 1, "reforward", state._replace(inner_state=inner)
        )
        errors = (-remainder, live - own, stored - live - remainder, reforward - live - remainder)
        found = {"gradient": own + remainder, "bits": bits(1.0) * info.loss_sum / info.num_losses}
        return found | dict(zip(ERRORS, errors, strict=True))


def summary(found: dict[str, np.ndarray]) -> Row:
    """Summarises g and the errors e of N windows, `[N, P]` each, relative to √(E ‖g‖²).

    one_window: √(E ‖e‖²). mean: ‖E e‖, corrected for the noise of N windows, with its 95 %
    interval. data_noise: √(E ‖g − E g‖²). All are divided by √(E ‖g‖²). (E g is no measure for
    them: updates follow g, so that its mean along a training is near zero.)
    """
    vectors = {name: np.asarray(found[name], np.float64) for name in ("gradient", *ERRORS)}
    products = {name: each @ each.T for name, each in vectors.items()}
    square = float(np.mean(np.diag(products["gradient"])))
    jackknife = Jackknife(np.ones(len(found["bits"])), 0.95)
    of_mean = jackknife.squared_mean(products["gradient"])[-1]
    noise = float(np.sqrt(1 - max(of_mean, 0) / square))
    row: Row = {"bits": float(np.mean(found["bits"])), "data_noise": noise}
    for name in ERRORS:
        mean = jackknife.squared_mean(products[name]) / square
        around = mean[-1] + jackknife.half_width(mean) * np.array([-1, 0, 1])
        low, middle, high = np.sqrt(np.maximum(around, 0)).tolist()
        one = float(np.sqrt(np.mean(np.diag(products[name])) / square))
        row[name] = {"one_window": one, "mean": middle, "interval": (low, high)}
    return row
