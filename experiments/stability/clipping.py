"""(iv) What clipping costs: a gradient that is no longer unbiased.

The other price, slower progress, is measured beside the trainings of (ii).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.tables import Row
from experiments.stability import methods, system


def bias(config: Any) -> list[Row]:
    """The mean of the clipped ARTBP gradient against the gradient of BPTT, at fixed weights.

    As in training, the gradient of each segment is clipped, and those of a sequence are summed:

        g(key) = Σ over segments of clip(gradient of the segment)

    The gradients of a sequence without clipping sum to an unbiased estimate of that of BPTT.
    """
    length = config.sequence_length
    stream = system.sequences(
        1, config.num_rows, num_sequences=1, length=length, horizon=config.horizon
    )
    params = system.init(
        jax.random.split(jax.random.key(config.seed))[0],
        config.hidden_size,
        config.clipping_radius,
    )
    # In the scale of the estimator: its normaliser is that of a mean segment.
    segments = length / config.mean_length
    exact = jax.tree.map(lambda leaf: leaf * segments, jax.grad(system.mean_loss)(params, stream))
    bounds = [methods.Clip(norm=float(bound)) for bound in config.clip_bounds]
    bounds += [methods.Clip(value=float(bound)) for bound in config.clip_bounds]
    bounds.append(methods.Clip())
    mean, error = jax.device_get(mean_clipped(config, params, stream, bounds))
    return [
        {
            "part": "bias",
            "spectral_radius": config.clipping_radius,
            "norm_bound": bound.norm,
            "value_bound": bound.value,
            **compare(jax.tree.map(lambda leaf, i=i: leaf[i], mean), exact),
            "relative_standard_error": float(error[i] / system.global_norm(exact)),
            "num_keys": config.num_bias_keys,
        }
        for i, bound in enumerate(bounds)
    ]


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


def mean_clipped(
    config: Any, params: Any, stream: Any, bounds: Sequence[methods.Clip]
) -> tuple[Any, np.ndarray]:
    """The mean over keys, for each of the bounds, and its standard error.

    Returns:
        (a tree like params with a first axis [bounds], an array [bounds]). The standard error is
        that of the whole vector: √ of the summed variances of its entries.
    """
    truncation = methods.Truncation(
        "artbp_polynomial", config.mean_length, config.alpha, config.sequence_length
    )
    estimator = truncation.estimator(config.num_rows)
    carry = system.core.initial_carry(params["cell"], config.num_rows)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((len(bounds), *leaf.shape)), params)

    columns = methods.Clip(*np.array(bounds).T)
    clip_all = jax.vmap(methods.clip, in_axes=(None, 0))

    def one_pass(rng_key: jax.Array) -> Any:
        def segment(loop: Any) -> Any:
            total, state, _ = loop
            gradient, state, info = estimator.estimate(params, state, stream)
            total = jax.tree.map(jnp.add, total, clip_all(gradient, columns))
            return total, state, info.end_of_stream

        start = zeros, estimator.init(params, carry, rng_key=rng_key), jnp.zeros((), bool)
        return jax.lax.while_loop(lambda loop: ~loop[2], segment, start)[0]

    @jax.jit
    def sums(keys: jax.Array) -> tuple[Any, jax.Array]:
        def add(sums: Any, key: jax.Array) -> Any:
            total = one_pass(key)
            squares = jnp.square(jax.vmap(system.global_norm)(total))
            return (jax.tree.map(jnp.add, sums[0], total), sums[1] + squares), None

        return jax.lax.scan(add, (zeros, jnp.zeros(len(bounds))), keys)[0]

    num_keys = config.num_bias_keys
    first, squares = sums(jax.random.split(jax.random.key(config.seed + 1), num_keys))
    mean = jax.tree.map(lambda leaf: leaf / num_keys, first)
    mean_squared = np.square(np.asarray(jax.vmap(system.global_norm)(mean)))
    variance = np.maximum(np.asarray(squares) / num_keys - mean_squared, 0.0)
    return mean, np.sqrt(variance / max(num_keys - 1, 1))
