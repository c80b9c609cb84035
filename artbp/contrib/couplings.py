"""Couplings: joint draws of the boundaries of many rows that leave the gradient unbiased.

The gradient of a batch is a sum of one term g_b per row; so is the mean over several draws of
boundaries on the same data. If the boundaries of each single row follow the truncation law, any
joint law of the rows gives the same expectation. It changes the variance:

    Var(Σ_b g_b) = Σ_b Var(g_b) + Σ_{b ≠ b'} Cov(g_b, g_b')

shared       all rows have the boundaries of row 0
independent  there are no covariances
antithetic   rows 2i and 2i + 1 use u and 1 − u: one is short where the other is long
stratified   R rows use one u from each of R equal parts of (0, 1], in a random order

The uniform u of the j-th segment gives its length: length > k ⟺ u ≤ S(k). The uniforms of
different j are independent. Source: Owen, "Monte Carlo theory, methods and examples" (2013),
chapters 8 and 10.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from artbp.truncation.base import InvertibleLaw, TruncationLaw, check_law, full_precision_uniform
from artbp.truncation.deterministic import check_length

Coupling = Literal["shared", "independent", "antithetic", "stratified"]


def sample_row_gates(
    law: TruncationLaw, rng_key: jax.Array, num_steps: int, num_rows: int, coupling: Coupling
) -> jax.Array:
    """Draws the gates (1 − X_t)/(1 − c_t) of many rows, for `artbp.unroll`; boundaries are 0.

        gates[:, b] ~ law.sample_gates(key, num_steps)     for every single row b

    This holds for every coupling, so the gradient summed over the rows is always unbiased.

    Args:
      law: an `artbp.truncation.InvertibleLaw`, as all random laws here are, unless the coupling is
        "shared" or "independent".
      rng_key: consumed.
      num_steps: T, the length of the gates.
      num_rows: R rows of the batch, or R draws on the same data. An odd last row has no partner.
      coupling: "shared": every row has `law.sample_gates(rng_key, T)`. "independent": row b has
        `law.sample_gates(split(rng_key, R)[b], T)`. "antithetic", "stratified": see this module.
        Danger: these two make rows dependent; their spread no longer estimates the variance.

    Returns:
      float `[T, R]`, in JAX's default float dtype.

    Raises:
      TypeError: law is not a `TruncationLaw`, or not invertible where the coupling needs that.
      ValueError: an unknown coupling, num_steps or num_rows not an integer ≥ 1.
    """
    check_law(law)
    check_coupling(coupling)
    num_steps = check_length(num_steps, "num_steps")
    num_rows = check_length(num_rows, "num_rows")
    if coupling not in ("shared", "independent") and not isinstance(law, InvertibleLaw):
        raise TypeError(
            f"{type(law).__name__} has no closed form for the lengths of coupling={coupling!r}. "
            "Make it an InvertibleLaw with length_at(u), or use 'independent' or 'shared'."
        )
    limit = num_steps + 1

    def lengths_of(segment: jax.Array) -> jax.Array:
        if coupling == "shared":
            return jnp.broadcast_to(law.length_of(rng_key, segment, limit), (num_rows,))
        if coupling == "independent":
            row_keys = jax.random.split(rng_key, num_rows)
            return jax.vmap(law.length_of, in_axes=(0, None, None))(row_keys, segment, limit)
        uniforms = _antithetic if coupling == "antithetic" else _stratified
        assert isinstance(law, InvertibleLaw)
        return law.length_at(uniforms(jax.random.fold_in(rng_key, segment), num_rows))

    # There are T segments at most. lengths[j, b] is the length of the j-th segment of row b.
    lengths = jax.vmap(lengths_of)(jnp.arange(num_steps, dtype=jnp.int32))
    rows = jnp.arange(num_rows, dtype=jnp.int32)

    def step(state: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, jax.Array]:
        age, segment = state
        boundary = age == lengths[segment, rows]
        gates = jnp.where(boundary, 0.0, law.compensation(age))
        return (jnp.where(boundary, 1, age + 1), segment + boundary.astype(jnp.int32)), gates

    start = (jnp.ones_like(rows), jnp.zeros_like(rows))
    return lax.scan(step, start, length=num_steps)[1]


def check_coupling(coupling: str) -> None:
    """Raises ValueError unless `coupling` is the name of one."""
    if coupling not in get_args(Coupling):
        known = ", ".join(map(repr, get_args(Coupling)))
        raise ValueError(f"coupling={coupling!r}; expected one of {known}.")


def antithetic_uniforms(u: jax.Array, swap: jax.Array) -> jax.Array:
    """Returns u/2 and its reflection 1 − u/2, float32 `[2, n]`, swapped where `swap` is true.

    In (u, 1 − u), 1 − u is a multiple of 2⁻²⁴ near u = 1: too coarse for a tail, and maybe 0.
    """
    pair = jnp.stack([u / 2, 1 - u / 2])
    return jnp.where(swap[None], pair[::-1], pair)


def stratified_uniforms(u: jax.Array, strata: jax.Array) -> jax.Array:
    """Computes (strata + u)/R, float32 `[R]`, from u in (0, 1] and a permutation of 0, …, R − 1.

    Each row gets each stratum with equal probability, so each single row is uniform.
    """
    return (strata.astype(u.dtype) + u) / u.dtype.type(u.shape[0])


def _antithetic(rng_key: jax.Array, num_rows: int) -> jax.Array:
    uniform_key, swap_key = jax.random.split(rng_key)
    num_pairs = -(-num_rows // 2)
    u = jax.vmap(full_precision_uniform)(jax.random.split(uniform_key, num_pairs))
    pairs = antithetic_uniforms(u, jax.random.bernoulli(swap_key, shape=(num_pairs,)))
    return jnp.ravel(pairs.T)[:num_rows]


def _stratified(rng_key: jax.Array, num_rows: int) -> jax.Array:
    uniform_key, order_key = jax.random.split(rng_key)
    u = jax.vmap(full_precision_uniform)(jax.random.split(uniform_key, num_rows))
    return stratified_uniforms(u, jax.random.permutation(order_key, num_rows))
