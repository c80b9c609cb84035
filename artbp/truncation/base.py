"""The interface of a truncation law: the distribution of the length of a segment."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp._checks import check_above, check_integer, check_key, real_array

LONGEST = np.int32(np.iinfo(np.int32).max)  # the length of a segment that never ends


class TruncationLaw(abc.ABC):
    """The law of the length of one segment, drawn forward in time, before any loss is seen.

    With k the age, the number of steps since the last boundary (k = 1 at a segment's first step):

        hazard        c(k) = P(X = 1 at age k | no boundary before)
        survival      S(k) = P(length > k) = Π_{j ≤ k} (1 − c(j))
        compensation  1/(1 − c(k)), the gate of a step of age k that is no boundary

    ARTBP is unbiased because E[(1 − X)/(1 − c)] = 1 (arXiv 1705.08209).

    A law of your own implements `hazard` alone. Its lengths are then drawn age by age, exactly and
    with one draw a step. A law with a closed form for its lengths is an `InvertibleLaw`.

    `hazard` and `compensation` take ages k ≥ 1, `survival` takes k ≥ 0. Given NumPy arrays or
    integers they compute in float64 on the host; `hazard` and `compensation` also take JAX arrays
    and then compute in JAX's default float dtype. Subclasses are frozen: a law is a value.
    """

    @abc.abstractmethod
    def hazard(self, k: Any) -> Any:
        """c(k), shaped like k."""

    def sample_length(self, rng_key: jax.Array, limit: Any = None) -> jax.Array:
        """Draws the length of one segment: X ~ Bernoulli(c(k)) for k = 1, 2, … until X = 1.

        A subclass that overrides it must draw from the law that `hazard` states, or the gradient is
        biased.

        Args:
          rng_key: consumed.
          limit: an integer ≥ 1. The length is clamped to it, for instance to the steps left in the
            stream. The end of a sequence is no truncation, so it needs no compensation. Danger:
            without a limit, a law whose hazards end at 0 may draw for 2³¹ steps.

        Returns:
          int32 scalar, ≥ 1.

        Raises:
          TypeError, ValueError: rng_key is not one key; a limit that is no integer ≥ 1.
        """
        check_draw(rng_key, limit)
        longest = jnp.asarray(LONGEST if limit is None else limit, jnp.int32)

        def goes_on(k: jax.Array) -> jax.Array:
            uniform = full_precision_uniform(jax.random.fold_in(rng_key, k))
            is_boundary = uniform.astype(jnp.result_type(float)) <= self.hazard(k)
            return (k < longest) & ~is_boundary

        return lax.while_loop(goes_on, lambda k: k + jnp.int32(1), jnp.int32(1))

    def length_of(self, rng_key: jax.Array, n: Any, limit: Any = None) -> jax.Array:
        """The length of segment number n of an estimator that was initialised with `rng_key`."""
        check_key(rng_key)
        check_integer(0, n=n)
        return self.sample_length(jax.random.fold_in(rng_key, n), limit)

    def survival(self, k: Any) -> np.ndarray:
        """S(k) = P(length > k), float64, shaped like k; by cumulated log1p over ages 1 … max k.

        Takes concrete ages only: the sum runs on the host. S(0) = 1.
        """
        k = real_array("k", k, "whole ages k ≥ 0")
        if k.size == 0:
            return np.ones(k.shape)
        if not (k.min() >= 0 and k.max() < 2**31 and (k == np.floor(k)).all()):
            raise ValueError(f"k={k}; survival takes whole ages, expected 0 ≤ k < 2³¹. Round them.")
        k = k.astype(np.int64)
        with np.errstate(divide="ignore"):  # log 0 = −∞: the survival after a sure boundary
            log_steps = np.log1p(-self._shaped_hazard(np.arange(1, k.max() + 1)))
        return np.exp(np.concatenate([[0.0], np.cumsum(log_steps)]))[k]

    def compensation(self, k: Any) -> Any:
        """1/(1 − c(k)), and 0 where c(k) = 1: a certain boundary blocks the gradient."""
        hazard = self._shaped_hazard(k)
        xp = jnp if isinstance(hazard, jax.Array) else np
        sure = hazard == 1
        return xp.where(sure, 0.0, 1 / (1 - xp.where(sure, 0.0, hazard)))

    def _shaped_hazard(self, k: Any) -> Any:
        hazard = self.hazard(k)
        if np.shape(hazard) != np.shape(k):
            raise ValueError(
                f"{type(self).__name__}.hazard(k) has shape {np.shape(hazard)} for ages k of shape "
                f"{np.shape(k)}; expected one hazard for each age. A constant one is 0.1 + 0.0 * k."
            )
        return hazard

    def sample_gates(self, rng_key: jax.Array, n: int) -> jax.Array:
        """Draws the gates (1 − X_t)/(1 − c_t) of n steps, boundaries (0) included.

        An estimator initialised with the same key truncates where these gates are 0.

        Returns:
          float `[n]`, in JAX's default float dtype.

        Raises:
          TypeError, ValueError: rng_key is not one key; n is no integer ≥ 0.
        """
        check_key(rng_key)
        check_integer(0, n=n)

        def step(state: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], jax.Array]:
            age, length, segment = state
            boundary = age == length
            gate = jnp.where(boundary, 0.0, self.compensation(age))

            def next_segment() -> tuple[jax.Array, ...]:
                length = self.length_of(rng_key, segment + 1, limit)
                return jnp.ones_like(age), length, segment + 1

            return lax.cond(boundary, next_segment, lambda: (age + 1, length, segment)), gate

        # Beyond the n steps no boundary matters, and none of length n + 1 is seen.
        limit, zero = n + 1, jnp.zeros((), jnp.int32)
        state = (jnp.ones_like(zero), self.length_of(rng_key, zero, limit), zero)
        _, gates = lax.scan(step, state, length=n)
        return gates


class InvertibleLaw(TruncationLaw):
    """A truncation law whose survival has a closed-form inverse: one uniform draw gives a length.

    It implements `hazard` and `length_at`. Danger: the two must agree, or the compensation belongs
    to other boundaries than those drawn, and the gradient is biased.
    """

    @abc.abstractmethod
    def length_at(self, u: jax.Array) -> jax.Array:
        """The length of upper-tail probability u, uniform on (0, 1]: length > k ⟺ u ≤ S(k).

        It does not increase with u. Takes float32 of any shape; returns int32 ≥ 1, shaped like u.
        """

    def sample_length(self, rng_key: jax.Array, limit: Any = None) -> jax.Array:
        check_draw(rng_key, limit)
        length = self.length_at(full_precision_uniform(rng_key))
        return length if limit is None else jnp.minimum(length, jnp.asarray(limit, jnp.int32))


def as_ages(k: Any) -> Any:
    """Ages as floats to compute with: float64 on the host, JAX's default float otherwise."""
    if isinstance(k, jax.Array):
        return k.astype(jnp.result_type(float))
    k = real_array("k", k, "ages k ≥ 1")
    if k.size and not k.min() >= 1:
        raise ValueError(f"Ages start at k = 1, the first step of a segment; got k = {k.min():g}.")
    if (k != np.floor(k)).any():
        raise ValueError(f"k={k}; expected whole ages k ≥ 1, numbers of steps. Round them.")
    return k


def check_draw(rng_key: Any, limit: Any) -> None:
    """Raises TypeError or ValueError unless these are one key, and None or an integer ≥ 1."""
    check_key(rng_key)
    if limit is not None:
        check_integer(1, limit=limit)


def full_precision_uniform(rng_key: jax.Array) -> jax.Array:
    """Draws from the uniform law on (0, 1] with relative precision 2⁻²³ down to 2⁻⁶⁴.

    `jax.random.uniform` is a multiple of 2⁻²³ or so, too coarse for the tail of a length law:
    where S(k) = 1e-6, one part in eight of the probability would be rounded away.

    Returns:
      float32 scalar: 2^−(z+1) · m, z the number of leading zeros of 64 random bits, m in (1, 2].
    """
    high, low, mantissa = jax.random.bits(rng_key, (3,), jnp.uint32)
    zeros = jnp.where(high != 0, lax.clz(high), 32 + lax.clz(low)).astype(jnp.int32)
    significand = 1 + ((mantissa >> 9) + 1).astype(jnp.float32) * jnp.float32(2.0**-23)
    return jnp.ldexp(significand, -(zeros + 1))


def as_length(length: jax.Array) -> jax.Array:
    """A float length as int32, clamped to what int32 holds."""
    largest = np.float32(2**31 - 128)  # the largest float32 below 2³¹
    return jnp.minimum(length, largest.astype(length.dtype)).astype(jnp.int32)


def check_law(law: Any) -> None:
    """Raises TypeError unless `law` is a `TruncationLaw`, an instance and not the class."""
    if not isinstance(law, TruncationLaw):
        raise TypeError(
            f"law={law!r}; expected a truncation law, such as artbp.truncation.polynomial(16, 4)."
        )


def check_mean_length(mean_length: float) -> None:
    """Raises ValueError unless the mean length is a finite number above 1."""
    reason = " At 1 every step would be a boundary, which nothing compensates."
    check_above(1, reason, mean_length=mean_length)
