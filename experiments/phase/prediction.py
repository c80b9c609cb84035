"""Predicts the loss at the end of a training from the bias and the variance of its gradient.

Summed over a segment and averaged over B rows, the gradient per time step has

    drift       λ (θ − θ')          λ = Σ_k p_k h_k²,    θ' = Σ_k p_k h_k w_k / λ
    noise       D(θ)/B + V(θ, B)    per time step, in the long run

with p_k the share of steps whose gradient includes lag k: 1 for ARTBP and unbiased TBPTT,
(1 − k/K)₊ for TBPTT. D is
the long-run variance of the (truncated) gradient over the data, in closed form because everything
is Gaussian. ARTBP's boundaries add V, the `artbp.truncation.streaming_variance` of the gradient
that passes a boundary, by its lag; its Gram matrix has a closed form too (`lag_grams`). V does not
vanish with B, because the rows share their boundaries. For unbiased TBPTT, V comes from the
look-backs, which the rows share too: it is the `artbp.truncation.look_back_variance` of the
gradient through the windows j and more back. D and V are quadratic in θ.

SGD with a constant rate is then a linear recursion for the mean and the mean square of θ − θ',
and the excess loss at its end is minimised over the rates of a grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from artbp.truncation import TruncationLaw, look_back_variance, streaming_variance
from experiments.phase.system import System


class Gradient(NamedTuple):
    """Describes the gradient of an estimator on a system, per time step, averaged over B rows.

    The drift has `slope` λ and `fixed_point` θ'. The variance is `row_noise / B + shared_noise`,
    each given as (a, b, c) of a + b x + c x² with x = θ − θ': boundaries and look-backs add noise
    that is shared by all rows, besides noise of each row. `segment` is the mean time between
    updates.
    """

    slope: float
    fixed_point: float
    row_noise: np.ndarray
    shared_noise: np.ndarray
    segment: float


def tbptt_gradient(system: System, truncation_length: int) -> Gradient:
    """Describes TBPTT with cuts at every multiple of K."""
    length = truncation_length
    h, w = system.filters()
    share = np.maximum(0, 1 - np.arange(len(h)) / length)
    slope = float(share @ h**2)
    fixed_point = float(share @ (h * w)) / slope
    noise = _quadratic(lambda at: _data_noise_of_segments(system, at, length), fixed_point)
    return Gradient(slope, fixed_point, noise, np.zeros(3), length)


def artbp_gradient(system: System, law: TruncationLaw, mean_length: float) -> Gradient | None:
    """Describes ARTBP with boundaries shared by the rows.

    None where its variance is infinite, or cannot be summed from the lags of four memories.
    """

    def of_boundaries(theta: float) -> np.ndarray:
        return np.array([streaming_variance(law, gram) for gram in lag_grams(system, theta)])

    try:
        shared, of_rows = _quadratic(of_boundaries, system.optimum).T
    except ValueError:
        return None
    data = _quadratic(lambda theta: _data_noise(system, theta), system.optimum)
    return Gradient(system.curvature, system.optimum, data + of_rows, shared, mean_length)


def unbiased_tbptt_gradient(system: System, law: TruncationLaw, length: int) -> Gradient | None:
    """Describes unbiased TBPTT with windows of `length` = K steps and look-backs that rows share.

    The part of a window's gradient through the windows j and more back is, for one row,

        R_j = ρ^{(j−1)K} z_j b,    z_j = g Σ_{i≥0} ρ^i x_{−(j−1)K−1−i},    b = Σ_{t<K} ρ^t e_t

    where t counts from the start of the window. E[z_j b] = ρ^{(j−1)K} E[z_1 b] and E[z_j²] = S. All
    are Gaussian, so averaged over B rows, E R_j² = P + Q/B with

        P = ρ^{4(j−1)K} E[z_1 b]²,    Q = P + ρ^{2(j−1)K} S E[b²]

    None where the variance over the look-backs is infinite, because ‖R_j‖² falls more slowly than
    the survival of the law.
    """
    continuation = 1 - float(law.hazard(np.array([2**20]))[0])
    if system.decay ** (2 * length) >= continuation:
        return None
    edges = np.arange(int(64 * system.memory / length) + 2)  # until ρ^{2(j−1)K} is below e⁻¹²⁸
    of_mean, of_rows = (
        look_back_variance(law, system.decay ** (power * length * edges)) for power in (4, 2)
    )

    def of_look_backs(theta: float) -> np.ndarray:
        _, error, errors = _filters(system, theta)
        weights = system.decay ** np.arange(min(length, len(error)))
        mean = float(weights @ _covariances(system, error)[: len(weights)])  # E[z_1 b]
        square = _long_run(_products(weights, weights), errors)  # E[b²]
        shared = of_mean * mean**2
        return np.array([shared, shared + of_rows * system.later_power * square]) / length

    shared, rows = _quadratic(of_look_backs, system.optimum).T
    data = _quadratic(lambda theta: _data_noise(system, theta), system.optimum)
    return Gradient(system.curvature, system.optimum, data + rows, shared, length)


def excess_loss(
    system: System, gradient: Gradient, batch: int, rate: float, start: float, num_steps: int
) -> float:
    """Returns E ½ Λ (θ − θ*)² after `num_steps` of SGD at a constant rate, from θ = start.

        x ← (1 − η λ n) x + noise of variance η² n (a + b x + c x²),      x = θ − θ'

    for each segment of n steps; infinity where the mean square does not settle.
    """
    a, b, c = gradient.row_noise / batch + gradient.shared_noise
    n = gradient.segment
    keep = 1 - rate * gradient.slope * n
    grown = keep**2 + rate**2 * n * c
    if abs(keep) >= 1 or grown >= 1:
        return np.inf
    # (mean, mean square) ← move · (mean, mean square) + push
    move = np.array([[keep, 0.0], [rate**2 * n * b, grown]])
    push = np.array([0.0, rate**2 * n * a])
    settled = np.linalg.solve(np.eye(2) - move, push)
    x = start - gradient.fixed_point
    passed = np.linalg.matrix_power(move, round(num_steps / n))
    mean, square = passed @ (np.array([x, x**2]) - settled) + settled
    off = gradient.fixed_point - system.optimum
    return float(0.5 * system.curvature * (square + 2 * mean * off + off**2))


def lag_grams(system: System, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns (P, Q) with E⟨G_m, G_m'⟩ = P + Q/B for the gradient G_m that passes a boundary.

    Averaged over B rows, and for a boundary after step u,

        G_m = ρ^m x_{u−m} b_u,    b_u = g Σ_{i≥1} ρ^{i−1} e_{u+i},    e = o − y

    With μ_m = E[x_{u−m} b_u] and all Gaussian,

        P = ρ^{m+m'} μ_m μ_m',    Q = P + δ_{mm'} ρ^{2m} E[b²]

    up to the lag at which ρ^m is e⁻⁴.
    """
    _, error, errors = _filters(system, theta)
    decay = system.decay
    mean = _covariances(system, error)
    cotangent = system.gain * decay ** np.arange(len(error) - 1)
    square = _long_run(_products(cotangent, cotangent), errors)
    powers = decay ** np.arange(int(4 * system.memory) + 16)
    mean = mean[: len(powers)] * powers
    shared = np.outer(mean, mean)
    return shared, shared + np.diag(square * powers**2)


def _covariances(system: System, error: np.ndarray) -> np.ndarray:
    """g Σ_{i≥1} ρ^{i−1} error_{m+i} for m = 0, 1, …

    This is E[x_{u−m} b_u], because x_{u−m} comes back in e_{u+i} with the weight error_{m+i}. It is
    also E[z e_m] for z = g Σ_{i≥1} ρ^{i−1} x_{−i}.
    """
    mean = np.zeros(len(error))
    for m in reversed(range(len(error) - 1)):
        mean[m] = system.gain * error[m + 1] + system.decay * mean[m + 1]
    return mean


def _data_noise(system: System, theta: float) -> float:
    """Σ_j Cov(e_t φ_t, e_{t+j} φ_{t+j}) with φ = h∗x: for Gaussians, Σ_j R_ee R_φφ + R_eφ R_φe."""
    h, error, errors = _filters(system, theta)
    crossed = _products(error, h)
    return _long_run(errors, _products(h, h)) + float(np.sum(crossed * crossed[::-1]))


def _data_noise_of_segments(system: System, theta: float, length: int) -> float:
    """The same per time step with φ cut at every multiple of `length`.

    φ of two segments share no x, and neither does e of one segment with φ of a later one: the sum
    is over pairs within a segment.
    """
    h, error, errors = _filters(system, theta)
    ages = np.arange(length)
    lags = ages[:, None] - ages[None, :]

    def within(values: np.ndarray) -> np.ndarray:
        # Row t: the weights of x_0, …, x_{length−1} of the segment in step t.
        padded = np.pad(values, (0, max(0, length - len(values))))
        return np.where(lags >= 0, padded[np.maximum(lags, 0)], 0.0)

    reach = within(h)
    crossed = within(error) @ reach.T
    middle = len(errors) // 2
    total = errors[middle + np.clip(lags, -middle, middle)] * (reach @ reach.T)
    return float(np.sum(total + crossed * crossed.T)) / length


def _filters(system: System, theta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns h, θ h − w, and R_ee at the lags −n, …, n, of the error e = (θ h − w)∗x − σ ε."""
    h, w = system.filters()
    error = theta * h - w
    errors = _products(error, error)
    errors[len(errors) // 2] += system.noise**2
    return h, error, errors


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Σ_k first_k second_{k+j} at the lags j = −n, …, n, of arrays of one length."""
    size = 2 * len(first)
    spectrum = np.conj(np.fft.rfft(first, size)) * np.fft.rfft(second, size)
    return np.roll(np.fft.irfft(spectrum, size), len(first) - 1)[: 2 * len(first) - 1]


def _long_run(first: np.ndarray, second: np.ndarray) -> float:
    """Σ_j of the products of two symmetric functions of the lag, given at −n, …, n."""
    short, long = sorted((first, second), key=len)
    middle, half = len(long) // 2, len(short) // 2
    return float(short @ long[middle - half : middle + half + 1])


def _quadratic(function: Callable[[float], Any], around: float) -> np.ndarray:
    """(a, b, c) of a + b x + c x² with x = θ − around."""
    below, at, above = (function(around + x) for x in (-1.0, 0.0, 1.0))
    return np.array([at, (above - below) / 2, (above + below) / 2 - at])
