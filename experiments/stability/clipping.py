"""(iv) What clipping costs: a gradient that is no longer unbiased.

The other price, slower progress, is measured beside the trainings of (ii).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.report import Row
from experiments.stability import methods, system


def bias(config: Any) -> list[Row]:
    """The mean of the clipped ARTBP gradient against the gradient of BPTT, at first weights.

    As in training, the gradient of each segment is clipped, and those of a sequence are summed:

        g(key) = Σ over segments of clip(gradient of the segment)

    The gradients of a sequence without clipping sum to an unbiased estimate of that of BPTT.

    How the two compare differs much between networks: each of `num_seeds` draws has weights and a
    sequence of its own, and the rows hold median, smallest and largest over these draws.
    """
    bounds = [methods.Clip(norm=float(bound)) for bound in config.clip_bounds]
    bounds += [methods.Clip(value=float(bound)) for bound in config.clip_bounds]
    bounds.append(methods.Clip())
    average = averaging(config, bounds)
    gradient = jax.jit(jax.grad(system.mean_loss))
    # In the scale of the estimator: its normaliser is that of a mean segment.
    segments = config.sequence_length / config.mean_length
    draws = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        # The weights of the trainings with this seed, and a sequence that they do not see.
        init_key, boundary_key = jax.random.split(jax.random.key(seed))
        params = system.init(init_key, config.hidden_size, config.clipping_radius)
        stream = system.sequences(
            2 * seed + 1,
            config.num_rows,
            num_sequences=1,
            length=config.sequence_length,
            horizon=config.horizon,
        )
        mean, error = jax.device_get(average(params, stream, boundary_key))
        exact = jax.device_get(gradient(params, stream))
        exact = jax.tree.map(lambda leaf: leaf * segments, exact)
        error = error / system.global_norm(exact)
        draws.append(
            [
                compare(jax.tree.map(lambda leaf, i=i: leaf[i], mean), exact)
                | {"relative_standard_error": float(error[i])}
                for i in range(len(bounds))
            ]
        )
    return [
        {
            "part": "bias",
            "spectral_radius": config.clipping_radius,
            "norm_bound": bound.norm,
            "value_bound": bound.value,
            **over_draws([draw[i] for draw in draws]),
            "num_draws": len(draws),
            "num_keys": config.num_bias_keys,
        }
        for i, bound in enumerate(bounds)
    ]


def over_draws(draws: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median, smallest and largest of every number."""
    return {
        f"{name}_{word}": float(statistic([draw[name] for draw in draws]))
        for name in draws[0]
        for word, statistic in (("median", np.median), ("smallest", min), ("largest", max))
    }


def compare(mean: Any, exact: Any) -> dict[str, float]:
    """Norm of the mean over the exact norm, cosine, and |mean − exact| over the exact norm."""
    inner = sum(
        jnp.sum(a * b) for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(exact), strict=True)
    )
    norm, exact_norm = system.global_norm(mean), system.global_norm(exact)
    difference = system.global_norm(jax.tree.map(jnp.subtract, mean, exact))
    return {
        "relative_norm": float(norm / exact_norm),
        "cosine": float(inner / (norm * exact_norm)),
        "relative_bias": float(difference / exact_norm),
    }


def averaging(config: Any, bounds: Sequence[methods.Clip]) -> Callable[..., Any]:
    """The mean over `num_bias_keys` draws of the boundaries, for each of the bounds, and its error.

    Returns:
        `average(params, stream, rng_key) -> (mean, error)`, compiled once: a tree like params with
        a first axis [bounds], and an array [bounds]. The error is the standard error of the whole
        vector: √ of the summed variances of its entries.
    """
    truncation = methods.Truncation(
        "artbp_polynomial", config.mean_length, config.alpha, config.sequence_length
    )
    estimator = truncation.estimator(config.num_rows)
    columns = methods.Clip(*np.array(bounds).T)
    clip_all = jax.vmap(methods.clip, in_axes=(None, 0))
    num_keys = config.num_bias_keys

    @jax.jit
    def average(params: Any, stream: Any, rng_key: jax.Array) -> tuple[Any, jax.Array]:
        carry = system.core.initial_carry(params["cell"], config.num_rows)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((len(bounds), *leaf.shape)), params)

        def one_pass(rng_key: jax.Array) -> Any:
            def segment(loop: Any) -> Any:
                total, state, _ = loop
                gradient, state, info = estimator.estimate(params, state, stream)
                total = jax.tree.map(jnp.add, total, clip_all(gradient, columns))
                return total, state, info.end_of_stream

            start = zeros, estimator.init(params, carry, rng_key=rng_key), jnp.zeros((), bool)
            return jax.lax.while_loop(lambda loop: ~loop[2], segment, start)[0]

        def add(sums: Any, key: jax.Array) -> Any:
            total = one_pass(key)
            squares = jnp.square(jax.vmap(system.global_norm)(total))
            return (jax.tree.map(jnp.add, sums[0], total), sums[1] + squares), None

        start = zeros, jnp.zeros(len(bounds))
        first, squares = jax.lax.scan(add, start, jax.random.split(rng_key, num_keys))[0]
        mean = jax.tree.map(lambda leaf: leaf / num_keys, first)
        mean_squared = jnp.square(jax.vmap(system.global_norm)(mean))
        variance = jnp.maximum(squares / num_keys - mean_squared, 0.0)
        return mean, jnp.sqrt(variance / max(num_keys - 1, 1))

    return average
