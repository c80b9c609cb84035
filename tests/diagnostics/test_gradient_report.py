"""The gradient report equals plain loops over windows, and known answers in simple cases."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util
from problems import make_problem

import artbp
from artbp import truncation
from artbp.diagnostics import (
    TruncationVariance,
    describe,
    gradient_report,
    report_statistics,
    report_table,
    truncation_covariance,
)
from artbp.diagnostics.interval import student_t_quantile
from artbp.diagnostics.report_statistics import GradientSums, summarise

WINDOW, WINDOWS = 12, 9
LAW = truncation.polynomial(4, 4)


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return make_problem("rnn", WINDOW * WINDOWS + 5, resets=True, mask=True)


def windows(problem, **options):
    """Yields (carry that enters, window) in order."""
    options = {"initial_carry": problem.carry, **options}
    carry, stream = problem.carry, problem.stream
    for i in range(WINDOWS):
        steps = slice(i * WINDOW, (i + 1) * WINDOW)
        window = artbp.Stream(
            stream.xs[steps], stream.targets[steps], stream.resets[steps], stream.mask[steps]
        )
        yield carry, window
        carry, _ = artbp.unroll(
            problem.cell,
            problem.params,
            carry,
            window.xs,
            resets=window.resets,
            **options,
        )


def gradient(problem, carry, window, gates):
    def loss(params):
        _, ys = artbp.unroll(
            problem.cell,
            params,
            carry,
            window.xs,
            gates=gates,
            resets=window.resets,
            initial_carry=problem.carry,
        )
        losses = jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, window.targets)
        return jnp.sum(jnp.where(window.mask, losses, 0.0))

    return flatten_util.ravel_pytree(jax.grad(loss)(problem.params))[0]


def report(problem, **options):
    options = {"truncation_lengths": (1, 4), "laws": (), "num_samples": 2, **options}
    options = {"initial_carry": problem.carry, **options}
    return gradient_report(
        problem.cell,
        problem.loss_fn,
        problem.params,
        problem.carry,
        problem.stream,
        window_length=WINDOW,
        rng_key=jax.random.key(0),
        **options,
    )


def test_equals_a_loop_over_windows(problem, float64):
    """With K = 1 every offset gives the same cuts; each window is its own group."""
    found = report(problem)
    compute = jax.jit(lambda carry, window, gates: gradient(problem, carry, window, gates))
    whole, cut = (
        np.array([compute(*at, jnp.full(WINDOW, gate)) for at in windows(problem)])
        for gate in (1.0, 0.0)
    )

    def of_means(a, b):
        """Estimates ⟨E a, E b⟩ from pairs of different windows."""
        products = a @ b.T
        return (products.sum() - np.trace(products)) / (WINDOWS * (WINDOWS - 1))

    norm2 = of_means(whole, whole)
    bias = found.biases[0]
    np.testing.assert_allclose(found.gradient_norm, norm2**0.5, rtol=1e-9)
    noise2 = np.mean(np.sum(whole**2, axis=1)) - norm2
    np.testing.assert_allclose(found.data_noise, (noise2 / norm2) ** 0.5, rtol=1e-9)
    difference = cut - whole
    np.testing.assert_allclose(bias.projection, of_means(difference, whole) / norm2, rtol=1e-9)
    expected = max(of_means(difference, difference), 0) / norm2
    np.testing.assert_allclose(bias.relative_bias**2, expected, rtol=1e-9)
    np.testing.assert_allclose(
        bias.cosine,
        of_means(cut, whole) / (norm2 * of_means(cut, cut)) ** 0.5,
        rtol=1e-9,
    )
    np.testing.assert_allclose(bias.windows_to_matter, noise2 / norm2 / expected, rtol=1e-9)
    # By hand: leave one window out, Student's t with 8 degrees of freedom.
    left_out = []
    for c in range(WINDOWS):
        rest = np.arange(WINDOWS) != c
        d, g = difference[rest], whole[rest]

        def between(a, b):
            return (a.sum(0) @ b.sum(0) - np.sum(a * b)) / (len(a) * (len(a) - 1))

        data = np.mean(np.sum(g**2, axis=1)) - between(g, g)
        ratios = data / between(g, g), data / between(d, d)
        left_out.append([between(d, g) / between(g, g), *np.log(ratios)])
    spread = np.sum((left_out - np.mean(left_out, axis=0)) ** 2, axis=0)
    half_widths = 2.3060041 * np.sqrt(8 / 9 * spread)
    np.testing.assert_allclose(bias.projection_half_width, half_widths[0], rtol=1e-6)
    # The interval of a ratio is symmetric in its logarithm.
    low, high = np.log(np.square(found.data_noise_interval))
    np.testing.assert_allclose(high, np.log(noise2 / norm2) + half_widths[1], rtol=1e-6)
    np.testing.assert_allclose(low, np.log(noise2 / norm2) - half_widths[1], rtol=1e-6)
    low, high = bias.windows_interval
    np.testing.assert_allclose(low, bias.windows_to_matter * np.exp(-half_widths[2]), rtol=1e-6)
    for bias in found.biases:
        low, high = bias.windows_interval
        assert low <= bias.windows_to_matter <= high
        assert np.isinf(high) != bias.is_significant


def test_the_intervals_of_the_noise_include_the_error_of_the_gradient():
    """If the sampled noise does not vary, only the error of the gradient norm remains."""
    rng = np.random.default_rng(0)
    gradients = 1.0 + rng.standard_normal((16, 3))
    trace = TruncationVariance(2.0, 0.0, 0.0, None, None, 2, 0.95)

    def summarised(scale):
        sums = GradientSums(16, 16)
        for i, gradient in enumerate(scale * gradients):
            sums.add(i, jnp.asarray(gradient[None]))
        return summarise(sums, np.array([], np.int32), [LAW], [[trace]] * 4, [], 10, 0.95)

    found = summarised(1.0)
    (noise,) = found.noises
    low, high = noise.interval
    assert low < noise.relative_noise < high
    assert high / low > 1.2  # 16 windows determine ‖E g‖ to about a fifth
    assert noise.variance_interval[1] > 1.2 * noise.variance_interval[0] > 0
    # Without data noise, the ratio to it is infinite.
    gradients = np.ones((16, 3))
    (noise,) = summarised(1.0).noises
    assert noise.variance_to_data == np.inf
    assert noise.variance_interval == (0.0, np.inf)


def test_the_intervals_of_the_noise_include_its_sampling_error():
    """Equal windows and traces 1, 2, 3, 2 give the half-width 3.182 · 0.408 around the mean 2."""
    sums = GradientSums(16, 16)
    for i in range(16):
        sums.add(i, jnp.ones((1, 3)))
    traces = [[TruncationVariance(x, 0.0, 0.0, None, None, 2, 0.95)] for x in (1.0, 2.0, 3.0, 2.0)]
    (noise,) = summarise(sums, np.array([], np.int32), [LAW], traces, [], 10, 0.95).noises
    factor = np.exp(3.18245 * np.sqrt(2 / 3) / 2 / 2 / 2)
    expected = np.array([1 / factor, factor]) * np.sqrt(2 / 3)
    np.testing.assert_allclose(noise.interval, expected, rtol=1e-5)
    one = [[traces[0][0]._replace(half_width=0.5)]]
    (noise,) = summarise(sums, np.array([], np.int32), [LAW], one, [], 10, 0.95).noises
    np.testing.assert_allclose(noise.interval, np.sqrt(np.exp([-0.5, 0.5]) / 3), rtol=1e-6)
    noisy = GradientSums(16, 16)
    rng = np.random.default_rng(0)
    for i in range(16):
        noisy.add(i, jnp.asarray(3.0 + rng.standard_normal((1, 3))))

    def of(traces):
        (noise,) = summarise(noisy, np.array([], np.int32), [LAW], traces, [], 10, 0.95).noises
        return np.log(noise.variance_interval)

    alike = [[trace[0]._replace(trace=2.0)] for trace in traces]
    (low, high), (less_low, less_high) = of(traces), of(alike)
    wider = np.hypot((less_high - less_low) / 2, 2 * np.log(factor))
    np.testing.assert_allclose((high - low) / 2, wider, rtol=1e-5)


def test_noise_is_the_trace_of_the_exact_covariance(problem, float64):
    """With many samples in all windows the interval covers the exact noise, but not twice it."""
    found = report(
        problem, truncation_lengths=(), laws=(LAW,), num_samples=60, num_variance_windows=WINDOWS
    )
    traces = [
        np.trace(
            truncation_covariance(
                problem.cell,
                problem.loss_fn,
                LAW,
                problem.params,
                carry,
                window,
                initial_carry=problem.carry,
            )
        )
        for carry, window in windows(problem)
    ]
    exact = np.sqrt(np.mean(traces)) / found.gradient_norm
    (noise,) = found.noises
    low, high = noise.interval
    assert low < exact < high
    assert not low < 2 * exact < high
    np.testing.assert_allclose(noise.relative_noise, exact, rtol=0.25)
    np.testing.assert_allclose(noise.mean_length, 4, rtol=1e-6)
    # E[L²] = L0 + 2 L0 (L0 − 1)(α − 2)/(α − 3) = 52
    np.testing.assert_allclose(noise.mean_memory, 13, rtol=1e-3)
    assert "ARTBP with" in describe(found)


def test_the_noise_of_a_single_window_has_an_interval_of_the_level_asked_for(problem, float64):
    """Its squared width, in logarithms, is that of the gradient plus that of the trace.

    Each grows with the quantile of its own Student's t. Two levels give both; the third is checked.
    """
    levels, options = np.array([0.5, 0.95, 0.99]), {"truncation_lengths": (), "laws": (LAW,)}
    squares = []
    for level in levels.tolist():
        found = report(problem, num_variance_windows=1, num_samples=3, confidence=level, **options)
        low, high = found.noises[0].interval
        squares.append(np.log(high / low) ** 2)
    quantiles = [[student_t_quantile(level, n - 1) ** 2 for n in (WINDOWS, 3)] for level in levels]
    of_gradient, of_trace = np.linalg.solve(quantiles[:2], squares[:2])
    assert of_gradient > 0 and of_trace > 0
    expected = np.dot(quantiles[2], [of_gradient, of_trace])
    np.testing.assert_allclose(squares[2], expected, rtol=1e-9)


def look_back_variances(problem, carry, steps, law, length):
    """The variance over all look-backs of each window of a stream, [windows]."""
    num_windows = steps.num_steps // length

    def estimates_of(look_back):
        looking_back = truncation.replay(look_back[None], law)
        estimator = artbp.unbiased_tbptt(
            problem.cell, problem.loss_fn, looking_back, truncation_length=length
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

        def window(state, _):
            grads, state, _ = estimator.estimate(problem.params, state, steps)
            return state, flatten_util.ravel_pytree(grads)[0]

        return jax.lax.scan(window, state._replace(carry=carry), length=num_windows)[1]

    look_backs = jnp.arange(1, num_windows + 1, dtype=jnp.int32)
    estimates = np.asarray(jax.jit(lambda rows: jax.lax.map(estimates_of, rows))(look_backs))
    survival = law.survival(np.arange(num_windows))
    variances = []
    for n in range(num_windows):  # which has n older windows
        chance = np.append(-np.diff(survival[: n + 1]), survival[n])
        own = estimates[: n + 1, n]
        variances.append(chance @ np.sum((own - chance @ own) ** 2, axis=1))
    return np.array(variances)


def test_the_noise_of_look_backs_is_that_of_all_look_backs(problem, float64):
    """Two windows of the report, each with all the look-backs into the window before it."""
    options = {"truncation_lengths": (4,), "num_samples": 3, "num_variance_windows": 2}
    found = report(problem, initial_carry=None, **options)
    assert [row.truncation_length for row in found.look_backs] == [4] * 4
    work = [row.extra_work for row in found.look_backs]
    np.testing.assert_allclose(work, [1 / 3, 1, 0.5, 0.5], rtol=1e-6)
    entering = [carry for carry, _ in windows(problem, initial_carry=None)]
    fields = problem.stream.xs, problem.stream.targets, problem.stream.resets, problem.stream.mask
    for row in found.look_backs:
        variances = []
        for i in (1, WINDOWS - 1):
            steps = slice((i - 1) * WINDOW, (i + 1) * WINDOW)
            pair = artbp.Stream(*(leaf[steps] for leaf in fields))
            of_windows = look_back_variances(problem, entering[i - 1], pair, row.law, 4)
            variances.append(of_windows[3:].sum())
        expected = np.mean(variances) / found.gradient_norm**2
        np.testing.assert_allclose(row.relative_noise**2, expected, rtol=1e-10)
        to_data = expected / found.data_noise**2
        np.testing.assert_allclose(row.variance_to_data, to_data, rtol=1e-10)
        assert row.interval[0] < row.relative_noise < row.interval[1]
    *_, polynomial, optimal = found.look_backs
    assert optimal.relative_noise < polynomial.relative_noise  # at the same work


def test_only_the_steps_to_run_are_measured(problem, float64):
    """History and padding of a stream from a loader change nothing."""
    whole = problem.stream
    fields = [
        np.concatenate([leaf[:7], leaf, leaf[:3]])
        for leaf in (whole.xs, whole.targets, whole.resets, whole.mask)
    ]
    stop = np.int32(7 + whole.num_steps)
    chunk = artbp.Stream(*fields, history=7, stop=stop, ends=False)
    found, expected = report(problem._replace(stream=chunk)), report(problem)
    assert found._replace(look_backs=()) == expected._replace(look_backs=())
    assert found.look_backs == expected.look_backs


def test_a_cell_without_inputs(float64):
    """The same report as with inputs of zero."""

    def cell(params, carry, x):
        carry = jnp.tanh(params * carry + (0.0 if x is None else x))
        return carry, carry

    def loss_fn(params, y, target):
        return (y - target) ** 2

    targets = jax.random.normal(jax.random.key(0), (80, 2))
    found, expected = (
        gradient_report(
            *(cell, loss_fn, jnp.asarray(0.9), jnp.ones(2)),
            artbp.Stream(xs, targets, num_steps=80),
            window_length=10,
            truncation_lengths=(2,),
            laws=(LAW,),
            rng_key=jax.random.key(1),
        )
        for xs in (None, jnp.zeros((80, 2)))
    )
    assert report_table(found) == report_table(expected)
    assert found.biases[0].relative_bias > 0.01


def test_no_bias_without_memory(float64):
    """If a cell has no memory, cuts do not change the gradient."""
    keys = jax.random.split(jax.random.key(0))
    stream = artbp.Stream(*(jax.random.normal(key, (120, 2)) for key in keys))
    found = gradient_report(
        lambda params, carry, x: (params * x, params * x),
        lambda params, y, target: (y - target) ** 2,
        jnp.asarray(2.0),
        jnp.zeros(2),
        stream,
        window_length=10,
        truncation_lengths=(1, 3),
        laws=(LAW,),
        rng_key=jax.random.key(1),
    )
    for bias in found.biases:
        assert bias.relative_bias < 1e-12
        assert abs(bias.projection) < 1e-12
    assert not found.is_blind
    assert "No bias" in describe(found)
    (noise,) = found.noises
    assert noise.relative_noise == 0
    assert noise.interval == noise.variance_interval == (0.0, 0.0)
    assert "data noise dominates ARTBP's noise with polynomial(4, 4)" in describe(found)
    assert len(found.look_backs) == 6  # no law is optimal
    assert all(row.relative_noise == row.variance_to_data == 0 for row in found.look_backs)
    assert "unbiased TBPTT" not in describe(found)


@pytest.mark.parametrize("in_the_cell", [False, True])
def test_a_readout_of_zeros_shows_nothing(problem, in_the_cell, float64):
    """No gradient enters the carry, whether the readout belongs to the loss or to the cell."""
    params, cell, loss_fn = problem.params, problem.cell, problem.loss_fn
    if in_the_cell:

        def cell(params, carry, x):
            carry, y = problem.cell(params, carry, x)
            return carry, y @ params["readout"]

        def loss_fn(params, y, target):
            return (y - target) ** 2

    blind = {**params, "readout": jnp.zeros_like(params["readout"])}
    found = report(problem._replace(cell=cell, loss_fn=loss_fn, params=blind), laws=(LAW,))
    assert found.is_blind
    for words in (describe(found), report_table(found).splitlines()[-1]):
        assert words.startswith("Nothing can be seen here: at these params no gradient enters")
        assert "No bias" not in words
    assert found.gradient_norm > 0
    assert not report(problem._replace(cell=cell, loss_fn=loss_fn)).is_blind


def test_a_gradient_of_nan_shows_nothing(problem, float64):
    nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), problem.params)
    with pytest.raises(ValueError, match="NaN or infinite, so nothing can be seen here"):
        report(problem._replace(params=nan))


def test_a_bias_of_nan_is_no_bias_of_zero(problem, float64):
    found = report(problem)
    nan = dict.fromkeys(("relative_bias", "projection", "projection_half_width"), np.nan)
    unknown = found.biases[0]._replace(**nan, interval=(np.nan, np.nan))
    words = describe(found._replace(biases=[unknown]))
    assert "Nothing can be seen of TBPTT 1: its bias is NaN." in words
    assert "No bias" not in words and "similar" not in words and "dominates" not in words
    assert "TBPTT 1: its bias" in describe(found._replace(biases=[unknown, found.biases[1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation_lengths": (12,)}, "expected integers from 1 to window_length − 1 = 11"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"laws": (4,)}, "expected a truncation law"),
        ({"laws": LAW}, "laws is .*put it into a list"),
        ({"truncation_lengths": 4}, "truncation_lengths is 4.*put it into a list"),
    ],
)
def test_bad_options(problem, float64, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        report(problem, **options)


def test_too_few_windows(problem, float64):
    with pytest.raises(ValueError, match=r"2 windows of 50.*window_length of 14 at most"):
        gradient_report(
            problem.cell,
            problem.loss_fn,
            problem.params,
            problem.carry,
            problem.stream,
            window_length=50,
            truncation_lengths=(1,),
            laws=(),
            rng_key=jax.random.key(0),
        )


@pytest.mark.parametrize(
    ("law", "mean", "memory"),
    [
        (truncation.polynomial(16, 3.2), 16, 181),  # Σ L² converges, but very slowly
        (truncation.polynomial(16, 4), 16, 61),
        (truncation.geometric(5e5), 5e5, 1e6 - 1),
        (truncation.fixed(7), 7, 7),
        (truncation.replay([16, 16]), 16, 16),
        (truncation.replay([1, 3]), 2, 2.5),
        (truncation.never(), math.inf, math.inf),
        (truncation.tabulated([0.5, 0.5]), 2, 3),
    ],
)
def test_mean_length_and_memory_of_a_law(law, mean, memory):
    np.testing.assert_allclose(report_statistics._moments(law), (mean, memory), rtol=1e-12)
