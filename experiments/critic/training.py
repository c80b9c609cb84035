"""Training with and without a critic, and the variance that the look-back adds."""

import functools
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import flatten_util

import artbp
from artbp import truncation
from experiments.common.figures import COLOURS
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.critic.systems import SYSTEMS, System

POINTS = 50  # of a curve
LAST = 10  # of them, whose mean is the loss that counts
EARLY = 2  # of them, behind which the critic is looked at for the first time
_WINDOWS = 40  # on which the variance is measured
# What is measured early and at the end; None for estimators without it.
AT_TIMES = ("explained_early", "explained_last", "variance_early", "variance_last")


class Arm(NamedTuple):
    """Whether the estimator looks back, and whether it has a critic."""

    label: str
    color: str
    looks_back: bool
    has_critic: bool


ARMS = {
    "tbptt": Arm("TBPTT", COLOURS[5], False, False),
    "tbptt_critic": Arm("TBPTT with critic", COLOURS[4], False, True),
    "unbiased": Arm("unbiased TBPTT", COLOURS[2], True, False),
    "unbiased_critic": Arm("unbiased TBPTT with critic", COLOURS[0], True, True),
}


class Training:
    """The trainings of one arm on one system."""

    def __init__(self, system: System, arm: Arm, config: Any):
        self.system, self.arm, self.config = system, arm, config
        length = system.length
        law = truncation.geometric(1 / config.hazard) if arm.looks_back else truncation.fixed(1)

        def inner(function: Any) -> Any:
            return lambda params, *rest: function(params["model"], *rest)

        self.estimator = artbp.unbiased_tbptt(
            inner(system.cell),
            inner(system.loss_fn),
            law,
            truncation_length=length,
            normalizer=float(length * system.rows),
            critic=self._critic if arm.has_critic else None,
        )

    def _critic(self, params: Any, carry: Any) -> Any:
        """A network of one layer on what the system shows, its outputs like the carry."""
        own = params["critic"]
        hidden = jnp.tanh(self.system.features(carry) @ own["hidden"] + own["bias"][None])
        outputs = hidden @ own["output"] + own["offset"][None]
        leaves, treedef = jax.tree.flatten(carry)
        ends = np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1]
        return treedef.unflatten(jnp.split(outputs, ends, axis=-1))

    def init(self, rng_key: jax.Array) -> tuple[Any, Any]:
        """(params, carry): equal models for all arms of a key."""
        model_key, critic_key = jax.random.split(rng_key)
        model, carry = self.system.init(model_key)
        params = {"model": model}
        if self.arm.has_critic:
            inputs, units = self.system.features(carry).shape[1], self.config.critic_units
            outputs = sum(leaf.shape[-1] for leaf in jax.tree.leaves(carry))
            params["critic"] = {
                "hidden": jax.random.normal(critic_key, (inputs, units)) / np.sqrt(inputs),
                "bias": jnp.zeros(units),
                "output": jnp.zeros((units, outputs)),
                "offset": jnp.zeros(outputs),
            }
        return params, carry

    @functools.partial(jax.jit, static_argnums=(0, 4))
    def train(
        self, rate: Any, rng_key: jax.Array, stream: artbp.Stream, num_points: int = POINTS
    ) -> Any:
        """(losses of the points, share of δ² that the critic explains at the points, params)."""
        rates: dict[Hashable, optax.GradientTransformation] = {
            "model": optax.adam(rate),
            "critic": optax.adam(self.config.critic_rate),
        }
        optimizer = optax.multi_transform(rates, lambda params: {name: name for name in params})
        key, own = jax.random.split(rng_key)
        params, carry = self.init(key)
        state = self.estimator.init(params, carry, rng_key=own)

        def update(loop: Any, _: Any) -> Any:
            params, state, opt_state = loop
            grads, state, info = self.estimator.estimate(params, state, stream)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            critic = [info.extra.get(f"critic_{name}", 0.0) for name in ("error", "target")]
            return (params, state, opt_state), (info.loss_sum / info.num_losses, *critic)

        def point(loop: Any, _: Any) -> Any:
            each = self.config.num_steps // self.system.length // POINTS
            loop, found = jax.lax.scan(update, loop, length=each)
            loss, error, target = (jnp.mean(jnp.asarray(one)) for one in found)
            return loop, (loss, 1 - error / target)

        loop = params, state, optimizer.init(params)
        (params, _, _), curves = jax.lax.scan(point, loop, length=num_points)
        return *curves, params

    def variance(self, params: Any, rng_key: jax.Array, stream: artbp.Stream) -> float:
        """The variance of a window's gradient over look-backs, summed over the model's params.

        The params are frozen and the stream is given, so all draws see the same windows. Mean over
        the windows behind as many again, which older windows are looked back to.
        """
        keys = jax.random.split(rng_key, self.config.variance_draws)
        found = np.stack([self._gradients(params, key, stream) for key in keys])
        return float(found.var(axis=0, ddof=1).sum(axis=-1).mean())

    @functools.partial(jax.jit, static_argnums=0)
    def _gradients(self, params: Any, rng_key: jax.Array, stream: artbp.Stream) -> jax.Array:
        """The gradients of the measured windows by the model's params, `[windows, P]`."""

        def window(state: Any, _: Any) -> Any:
            grads, state, _ = self.estimator.estimate(params, state, stream)
            return state, flatten_util.ravel_pytree(grads["model"])[0]

        _, carry = self.init(rng_key)  # the same for every key
        state = self.estimator.init(params, carry, rng_key=rng_key)
        return jax.lax.scan(window, state, length=2 * _WINDOWS)[1][_WINDOWS:]


def run(config: Any, say: Say) -> list[Row]:
    """A row for each system and arm."""
    rows = []
    tuning, reported = split(run_keys(config), config)
    for name in config.systems:
        system = SYSTEMS[name]()
        streams = [
            system.stream(config.seed + i, config.num_steps)
            for i in range(config.num_tuning_runs + config.num_seeds)
        ]
        of_tuning, of_reported = split(streams, config)
        for arm_name, arm in ARMS.items():
            say(f"Training with {arm.label} on {system.label}.")
            training = Training(system, arm, config)
            train = training.train
            tuned = [
                [
                    float(np.mean(train(rate, key, stream)[0][-LAST:]))
                    for rate in config.learning_rates
                ]
                for key, stream in zip(tuning, of_tuning, strict=True)
            ]
            choice = choose_rate(config.learning_rates, tuned)
            found = [
                train(choice.rate, key, stream)
                for key, stream in zip(reported, of_reported, strict=True)
            ]
            losses = np.array([one[0] for one in found], np.float64)
            row = {
                "system": name,
                "arm": arm_name,
                "label": arm.label,
                "learning_rate": choice.rate,
                "rate_at_edge": choice.at_edge,
                "losses": losses.tolist(),
                "last_loss": losses[:, -LAST:].mean(axis=1).tolist(),
            }
            row |= dict.fromkeys(AT_TIMES)
            if arm.has_critic:
                explained = np.array([one[1] for one in found], np.float64)
                row["explained_early"] = explained[:, EARLY - 1].tolist()
                row["explained_last"] = explained[:, -LAST:].mean(axis=1).tolist()
            if arm_name == "unbiased_critic":
                runs = list(zip(reported, of_reported, strict=True))
                early = [train(choice.rate, *one, EARLY)[2] for one in runs]
                row["variance_early"] = _ratios(system, config, early, runs)
                row["variance_last"] = _ratios(system, config, [one[2] for one in found], runs)
            rows.append(row)
    return rows


def _ratios(system: System, config: Any, trained: list[Any], runs: list[Any]) -> list[float]:
    """The variance with the critic of each run over that without it, at the trained params."""
    with_critic, without = (
        Training(system, ARMS[name], config) for name in ("unbiased_critic", "unbiased")
    )
    return [
        with_critic.variance(params, *run) / without.variance({"model": params["model"]}, *run)
        for params, run in zip(trained, runs, strict=True)
    ]
