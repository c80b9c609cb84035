"""The figure of a lag profile draws every line at its values, for all kinds of dynamics."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import artbp
from artbp.diagnostics import lag_profile, plot_lag_profile

pytestmark = pytest.mark.usefixtures("float64")

R = 6


@pytest.fixture(scope="module")
def measured():
    """Measures s' = tanh(rate·s + θ), ℓ = Σ s: a vanishing profile whose decay varies."""
    with jax.enable_x64(True):
        return lag_profile(
            lambda theta, carry, x: (jnp.tanh(jnp.array([0.9, 0.4]) * carry + theta),) * 2,
            lambda theta, y, target: jnp.sum(y),
            jnp.array([0.3, 0.1]),
            jnp.zeros(2),
            artbp.Stream(None, num_steps=2 * R),
            num_lags=R,
            rng_key=jax.random.key(0),
            fitted_from=3,
        )


def draw(profile):
    """Returns (axes of the lines, axes of the cosines, the figure), laid out."""
    figure = plot_lag_profile(profile, Figure(figsize=(13, 5), layout="constrained"))
    figure.draw_without_rendering()
    return *figure.axes[:2], figure


def heights(axes):
    return [line.get_ydata() for line in axes.get_lines()]


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_the_numbers_of_the_profile_are_drawn(measured):
    decay, cosines, figure = draw(measured)
    assert decay.get_yscale() == "log"
    assert "time steps" in decay.get_xlabel()
    assert all(np.array_equal(line.get_xdata(), measured.lags) for line in decay.get_lines())
    state, gradient, bound, fit = heights(decay)
    np.testing.assert_allclose(state, measured.loss_norms / measured.loss_norms[0], rtol=1e-14)
    # E(0) = γ_1 + E(1).
    whole = measured.gradient_norms[0] + measured.bias_bounds[0]
    np.testing.assert_allclose(gradient, measured.gradient_norms / whole, rtol=1e-12)
    np.testing.assert_allclose(bound, measured.bias_bounds / whole, rtol=1e-12)
    line = np.polyfit(measured.lags[2:], np.log(measured.gradient_norms[2:] / whole), 1)
    assert line[0] == pytest.approx(-1 / measured.time_constant)
    np.testing.assert_allclose(fit[2:], np.exp(np.polyval(line, measured.lags[2:])), rtol=1e-10)
    assert np.all(np.isnan(fit[:2]))  # the line begins where the fit does

    sizes = np.sqrt(np.diagonal(measured.gram))
    (image,) = cosines.images
    np.testing.assert_allclose(image.get_array(), measured.gram / sizes[:, None] / sizes[None, :])
    assert image.get_clim() == (-1, 1)
    assert "cosine" in figure.axes[2].get_ylabel()


def test_labels_are_at_the_ends_of_their_lines(measured):
    decay, cosines, _ = draw(measured)
    found = {text.get_text().replace("\n", " "): text for text in decay.texts}
    assert len(found) == 4
    assert any(f"time constant {measured.time_constant:.3g} steps" in text for text in found)
    ends = {line.get_color(): line.get_ydata()[-1] for line in decay.get_lines()}
    order = sorted(found.values(), key=lambda text: text.get_position()[1])
    assert np.all(np.diff([ends[text.get_color()] for text in order]) >= 0)
    # Labels are on the figure, right of the axes, and do not overlap.
    boxes = [text.get_window_extent() for text in order]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
    left, right = decay.get_window_extent().x1, cosines.get_tightbbox().x0
    assert all(left < box.x0 and box.x1 < right for box in boxes)
    title = decay.get_title(loc="left").replace("\n", " ")
    assert title == (
        "Vanishing: a perturbation of the carry shrinks e-fold in "
        f"{-1 / measured.growth_rate:.2g} steps (exponent −{-measured.growth_rate:.2g} per step)."
    )


def test_where_nothing_decays_there_is_no_bound(measured):
    growing = measured._replace(
        loss_norms=1.5**measured.lags,
        gradient_norms=2 * 1.2**measured.lags,
        bias_bounds=np.full(R, np.inf),
        decay_rate=1.2,
        time_constant=float("inf"),
        growth_rate=0.4,
        dynamics="exploding",
    )
    decay, *_ = draw(growing)
    state, gradient, fit = heights(decay)
    np.testing.assert_allclose(state, 1.5 ** np.arange(R))
    np.testing.assert_allclose(gradient, 1.2 ** np.arange(R))
    np.testing.assert_allclose(fit[2:], gradient[2:])
    assert decay.get_ylim()[0] < 1 < state[-1] < decay.get_ylim()[1]
    assert any("× 1.2\nper step: E(K) = ∞" in text for text in words(decay))
    assert "grows e-fold\nin 2.5 steps (exponent +0.4 per step)" in decay.get_title(loc="left")
    slow = growing._replace(growth_rate=-0.01, dynamics="long memory")
    title = draw(slow)[0].get_title(loc="left").replace("\n", " ")
    assert title.startswith("Long memory: over 6 steps a perturbation of the carry changes by less")


def test_zeros_are_left_out(measured):
    """Gradients beyond lag 2 are zero, and the value 1e-9 at lag 2 is below the axes."""
    some = np.array([1.0, 1e-9, 0, 0, 0, 0])
    gram = np.diag([4.0, 1.0, 0, 0, 0, 0])
    short = measured._replace(
        loss_norms=some,
        gradient_norms=some,
        bias_bounds=np.array([1e-9, 0, 0, 0, 0, 0]),
        gram=gram,
        fitted_from=2,  # one lag gives no slope, so there is no fit
        decay_rate=0.0,
        time_constant=0.0,
    )
    decay, cosines, _ = draw(short)
    state, _, bound, fit = heights(decay)
    np.testing.assert_allclose(state, [1, 1e-9, *[np.nan] * 4])
    np.testing.assert_allclose(bound, [1e-9, *[np.nan] * 5])
    assert np.all(np.isnan(fit))
    assert len(words(decay)) == 3
    assert 1e-7 < decay.get_ylim()[0] < 1 < decay.get_ylim()[1]
    assert decay.get_xlim()[1] < 2  # the lines end where they leave the axes
    shown = cosines.images[0].get_array()
    assert np.array_equal(shown.mask, gram.sum(0)[:, None] * gram.sum(0)[None, :] == 0)
    assert shown[0, 0] == shown[1, 1] == 1

    none = np.zeros(R)
    memoryless = short._replace(
        loss_norms=none, gradient_norms=none, bias_bounds=none, gram=0 * gram, growth_rate=-np.inf
    )
    decay, cosines, _ = draw(memoryless)
    assert words(decay) == ["No gradient flows through the carry."]
    assert "a perturbation of the carry is zero after one step" in decay.get_title(loc="left")
    assert cosines.images[0].get_array().mask.all()


def test_what_overflows_is_left_out():
    """With s' = 1e60·s + θ gradients overflow float64 within a few lags."""
    exploding = lag_profile(
        lambda theta, carry, x: (1e60 * carry + theta,) * 2,
        lambda theta, y, target: y,
        jnp.array(0.0),
        jnp.array(0.0),
        artbp.Stream(None, num_steps=24),
        num_lags=12,
        num_samples=1,
        rng_key=jax.random.key(0),
    )
    assert np.isnan(exploding.decay_rate)
    assert np.isinf(exploding.time_constant)
    assert not np.isfinite(exploding.loss_norms).all()
    decay, *_ = draw(exploding)
    state, _, fit = heights(decay)
    finite = np.isfinite(exploding.loss_norms / exploding.loss_norms[0])
    np.testing.assert_array_equal(np.isfinite(state), finite)
    assert np.isnan(fit).all()
    assert len(words(decay)) == 2
    assert all(0 <= text.get_position()[1] <= 1.1 for text in decay.texts)
    assert decay.get_title(loc="left").startswith("Exploding")
    # A line with NaN still has its label beside the others.
    holes = np.where(exploding.lags > 2, np.nan, exploding.gradient_norms)
    decay, *_ = draw(exploding._replace(gradient_norms=holes))
    assert all(0 <= text.get_position()[1] <= 1.1 for text in decay.texts)
