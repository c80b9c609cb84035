"""(i) The norm of the gradient of one sequence, and (iv) the bias of clipped gradients.

Clipping costs progress too, which is measured beside the trainings of (ii).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import artbp
from experiments.common.arms import parse
from experiments.common.report import Row
from experiments.stability import system
from experiments.stability.system import Clip

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def norms(config: Any) -> list[Row]:
    """Quantiles over draws of weights, sequence and boundaries, all drawn anew for each.

    The draws are the same for every arm and, but for the factor ρ, for every ρ.
    """
    length, num_draws = config.sequence_length, config.num_norm_draws
    stream = system.sequences(config, config.seed, num_rows=num_draws * config.num_rows)
    xs, targets = (
        jnp.swapaxes(jnp.reshape(array, (length, num_draws, config.num_rows, 1)), 0, 1)
        for array in (stream.xs, stream.targets)
    )
    init_keys, boundary_keys = jax.random.split(jax.random.key(config.seed), (2, num_draws))

    @jax.jit
    def measure(all_gates: jax.Array, radius: Any) -> jax.Array:
        def norm(draw: Any) -> jax.Array:
            init_key, gates, xs, targets = draw
            params = system.init(init_key, config.hidden_size, radius)
            gradient = jax.grad(system.mean_loss)(params, artbp.Stream(xs, targets), gates)
            return optax.tree.norm(gradient)

        return jax.lax.map(norm, (init_keys, all_gates, xs, targets), batch_size=32)

    rows = []
    for arm in map(parse, config.arms):
        law: Any = arm.law
        gates = jax.jit(jax.vmap(lambda key, law=law: law.sample_gates(key, length)))(boundary_keys)
        for radius in config.spectral_radii:
            values = np.array(measure(gates, radius), np.float64)
            quantiles = np.quantile(values, QUANTILES).tolist()
            row: Row = {"part": "norms", "arm": arm.text, "label": arm.label}
            row["spectral_radius"] = radius
            row["quantiles"] = dict(zip(map(str, QUANTILES), quantiles, strict=True))
            rows.append(row | {"largest": float(values.max()), "num_draws": num_draws})
    return rows


def bias(config: Any) -> list[Row]:
    """The mean of the clipped gradient of `clipped_arm` against that of BPTT, at first weights.

    The gradients of a sequence without clipping sum to an unbiased estimate of that of BPTT. How
    the two compare differs much between networks: each of `num_seeds` draws has weights and a
    sequence of its own, and the rows hold median, smallest and largest over these draws.
    """
    bounds = [Clip(norm_bound=bound) for bound in config.clip_bounds]
    bounds += [Clip(value_bound=bound) for bound in config.clip_bounds] + [Clip()]
    clipped = clipped_gradients(config, bounds)
    gradient = jax.jit(jax.grad(system.mean_loss))
    # In the scale of the estimator: its normaliser is that of a mean segment.
    segments = config.sequence_length / parse(config.clipped_arm).length
    draws = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        # The weights of the trainings with this seed, and a sequence that they do not see.
        init_key, boundary_key = jax.random.split(jax.random.key(seed))
        params = system.init(init_key, config.hidden_size, config.clipping_radius)
        stream = system.sequences(config, 2 * seed + 1)
        keys = jax.random.split(boundary_key, config.num_bias_keys)
        exact = segments * np.asarray(ravel_pytree(gradient(params, stream))[0])
        draws.append(compare(np.asarray(clipped(params, stream, keys)), exact))
    over_draws = {
        f"{name}_{word}": statistic([draw[name] for draw in draws], axis=0)
        for name in draws[0]
        for word, statistic in (("median", np.median), ("smallest", np.min), ("largest", np.max))
    }
    return [
        {"part": "bias", "spectral_radius": config.clipping_radius}
        | bound._asdict()
        | {name: float(values[i]) for name, values in over_draws.items()}
        | {"num_draws": len(draws), "num_keys": config.num_bias_keys}
        for i, bound in enumerate(bounds)
    ]


def compare(gradients: np.ndarray, exact: np.ndarray) -> dict[str, np.ndarray]:
    """The mean over draws against the exact gradient, [bounds] each, over the exact norm.

    From gradients [draws, bounds, params] and the exact one [params]. The standard error is that of
    the mean as a vector: √ of the summed variances of its entries.
    """
    mean, size = gradients.mean(axis=0), np.linalg.norm(exact)
    norms = np.linalg.norm(mean, axis=1)
    variance = gradients.var(axis=0, ddof=1).sum(axis=1)
    return {
        "relative_norm": norms / size,
        "cosine": mean @ exact / (norms * size),
        "relative_bias": np.linalg.norm(mean - exact, axis=1) / size,
        "relative_standard_error": np.sqrt(variance / len(gradients)) / size,
    }


def clipped_gradients(config: Any, bounds: Sequence[Clip]) -> Callable[..., jax.Array]:
    """As in training, the gradient of each segment is clipped, and those of a sequence are summed.

    Returns:
        `gradients(params, stream, keys) -> [keys, bounds, number of params]`, compiled once.
    """
    estimator = system.make_estimator(parse(config.clipped_arm), config)
    columns = Clip(*np.array(bounds).T)

    def fold(total: jax.Array, gradient: Any, info: Any) -> jax.Array:
        return total + jax.vmap(lambda one: ravel_pytree(system.clip(gradient, one))[0])(columns)

    @jax.jit
    def gradients(params: Any, stream: Any, keys: jax.Array) -> jax.Array:
        carry = system.core.initial_carry(params["cell"], config.num_rows)
        zeros = jnp.zeros((len(bounds), ravel_pytree(params)[0].size))

        def one(key: jax.Array) -> jax.Array:
            state = estimator.init(params, carry, rng_key=key)
            return artbp.run_pass(estimator, params, state, stream, fold=fold, initial=zeros)[0]

        return jax.lax.map(one, keys)

    return gradients
