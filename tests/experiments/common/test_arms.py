"""Arms: what text they are read from, what they build, and what they cost."""

import jax
import numpy as np
import pytest

import artbp
from experiments.common import arms, figures
from experiments.common.arms import Size, named, parse
from experiments.common.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "label", "length", "evaluations"),
    [
        ("bptt", "full BPTT", None, 3),
        ("bptt(32)", "full BPTT", 32, 3),
        ("tbptt(50)", "TBPTT 50", 50, 3),
        ("tbptt(50, draw_offset=True)", "TBPTT 50, offset drawn", 50, 3),
        ("tbptt_1_rmsprop", "TBPTT 1, RMSprop", 1, 3),
        ("tbptt_k1_k2(16, 8)", "TBPTT(16, 8)", 16, 2),
        ("tbptt_k1_k2(10, 20)", "TBPTT(10, 20), stored", 10, 5),
        ("tbptt_k1_k2(10, 20, mode='past_weights')", "TBPTT(10, 20), past weights", 10, 5),
        ("tbptt_k1_k2(10, 20, mode='reforward')", "TBPTT(10, 20), run again", 10, 6),
        ("artbp(16, alpha=4)", "ARTBP 16, α = 4", 16, 3),
        ("artbp(16, law='geometric')", "ARTBP 16, geometric", 16, 3),
        ("uncompensated(16, alpha=6)", "No compensation 16, α = 6", 16, 3),
        ("adaptive_tbptt(16)", "TBPTT, length adapted", 16, 5 + 2 * 65 / 64),
        ("rtrl(16)", "RTRL", 16, 2 + 5 + 3),
        ("snap1(16)", "SnAp-1", 16, 2 + 5 + 3),
        ("uoro(16)", "UORO", 16, 4),
        ("pes(16)", "PES 16, 8 pairs", 16, 17),
        ("pes(16, num_pairs=2)", "PES 16, 2 pairs", 16, 5),
        ("nres(16, num_pairs=1)", "NRES 16, 1 pair", 16, 3),
        ("gpes(16, 32)", "GPES 32, unrolls of 16, 8 pairs", 16, 17),
        ("forward_gradient(16)", "forward gradient, 1 direction", 16, 3),
    ],
)
def test_an_arm_is_read_from_its_text(text, label, length, evaluations):
    arm = parse(text)
    assert (arm.text, arm.label, arm.length) == (text, label, length)
    assert arm.evaluations(Size(num_params=5, num_states=3)) == evaluations
    assert isinstance(arm.build(None, None, normalizer=2.0), artbp.GradientEstimator)


def test_texts_with_one_meaning_are_one_arm():
    assert parse(" artbp( 16,alpha = 4.0 )") == parse("artbp(16, alpha=4)")
    assert parse("tbptt(length=16)") == parse("tbptt(16)") != parse("tbptt(17)")
    assert parse("bptt()") == parse("bptt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("artpb(16)", "'artpb', which is unknown. Did you mean artbp?.*tbptt"),
        ("tbptt(k=3)", r"The arguments are tbptt\(length, draw_offset=False, segment_start="),
        ("tbptt(2.5)", "expected an integer"),
        ("tbptt(0)", "length=0"),
        ("artbp(16)", "expected alpha"),
        ("artbp(16, alpha=4, law='geometric')", "expected alpha, for the polynomial law, or"),
        ("tbptt_k1_k2(4, 8, mode='new')", "past_weights"),
        ("tbptt_k1_k2(4, 8, losses='old')", "losses='old'; expected one of 'new', 'window'"),
        ("tbptt_k1_k2(0, 5)", "k1=0"),
        ("tbptt_k1_k2(5, 0)", "k2=0"),
        ("adaptive_tbptt(0)", "length=0"),
        ("unbiased_tbptt(50, hazard=0)", "hazard=0, expected a number between 0 and 1"),
        ("unbiased_tbptt(50, hazard=1.5)", r"hazard=1\.5, expected a number between 0 and 1"),
        ("unbiased_tbptt(50, hazard=0.5, mode='new')", "mode='new'; expected one of 'stored'"),
        ("gpes(16, 24)", "draw_every=24; expected a multiple"),
        ("pes(16, num_pairs=0)", "num_pairs=0"),
        ("forward_gradient(4, num_directions=0)", "num_directions=0"),
        ("tbptt(n)", "literal arguments"),
        ("tbptt(*[1])", "literal arguments"),
        ("__import__('os')", "unknown"),
        ("tbptt(", "cannot be read"),
    ],
)
def test_what_is_no_arm_is_refused_with_what_there_is(text, words):
    with pytest.raises(ConfigError, match=words):
        parse(text)


@pytest.mark.parametrize("law", ["alpha=4", "law='geometric'"])
def test_compensation_makes_no_arm_from_zero_unbiased(law):
    assert parse(f"artbp(4, {law})").claims.bias == "none"
    from_zero = parse(f"artbp(4, {law}, segment_start='initial')").claims
    assert (from_zero.bias, from_zero.unbiased, from_zero.random) == ("truncation", False, True)
    for text in ("uncompensated(4, alpha=4, {})", "tbptt(4, {})", "tbptt(4, draw_offset=True, {})"):
        assert not parse(text.format("segment_start='initial'")).claims.unbiased


def test_an_experiment_may_have_arms_of_its_own():
    @named
    def standing_still(length):
        return arms.tbptt(length)

    own = {"standing_still": standing_still}
    assert parse("standing_still(3)", own).text == "standing_still(3)"
    with pytest.raises(ConfigError, match="standing_still"):
        parse("standing_stil(3)", own)
    with pytest.raises(ConfigError, match="unknown"):
        parse("standing_still(3)")


# The arm of each entry of the registry that the experiments can compare.
TEXTS = {
    "bptt": "bptt",
    "tbptt": "tbptt(4)",
    "tbptt_drawn_offset": "tbptt(4, draw_offset=True)",
    "tbptt_short_window": "tbptt_k1_k2(4, 2)",
    "tbptt_stored": "tbptt_k1_k2(4, 8)",
    "tbptt_past_weights": "tbptt_k1_k2(4, 8, mode='past_weights')",
    "tbptt_reforward": "tbptt_k1_k2(4, 8, mode='reforward')",
    "tbptt_window_losses": "tbptt_k1_k2(4, 8, losses='window')",
    "adaptive_tbptt": "adaptive_tbptt(4)",
    "awd_lstm_bptt": "awd_lstm_bptt(4)",
    "uncompensated_polynomial_4": "uncompensated(4, alpha=4)",
    "artbp_polynomial_4": "artbp(4, alpha=4)",
    "artbp_polynomial_6": "artbp(4, alpha=6)",
    "artbp_geometric": "artbp(4, law='geometric')",
    "unbiased_tbptt": "unbiased_tbptt(4, windows=1.5, alpha=4)",
    "random_truncation": "random_truncation(4)",
    "rtrl": "rtrl(4)",
    "snap1": "snap1(4)",
    "uoro": "uoro(4)",
    "truncated_es": "truncated_es(4, num_pairs=32)",
    "pes": "pes(4, num_pairs=32)",
    "gpes": "gpes(4, 8, num_pairs=32)",
    "nres": "nres(4, num_pairs=32)",
    "forward_gradient": "forward_gradient(4)",
}


@pytest.mark.parametrize("name", artbp.REGISTRY)
def test_an_arm_computes_what_the_entry_of_the_registry_does_whose_claims_it_takes(name):
    """Each entry of the registry at a mean length of 4, on two estimates of a small stream."""
    arm = parse(TEXTS[name])
    assert arm.claims[1:] == artbp.REGISTRY[name][1:]

    def cell(params, carry, x):
        carry = jax.numpy.tanh(0.9 * carry + params * x)
        return carry, carry

    def loss_fn(params, y, target):
        return (y - target) ** 2

    stream = artbp.Stream(np.linspace(-1.0, 1.0, 12, dtype=np.float32), np.ones(12, np.float32))

    def second_gradient(estimator):
        state = estimator.init(0.5 * jax.numpy.ones(()), 0.0 * jax.numpy.ones(()), rng_key=key)
        for _ in range(2):
            gradient, state, _ = estimator.estimate(0.5 * jax.numpy.ones(()), state, stream)
        return gradient

    key = jax.random.key(0)
    expected = second_gradient(artbp.REGISTRY[name].build(cell, loss_fn, 4))
    np.testing.assert_array_equal(second_gradient(arm.build(cell, loss_fn)), expected)


def test_a_family_has_one_color_and_its_arms_shades_of_it():
    family = [parse(f"tbptt({length})") for length in (4, 8, 16)]
    one = parse("artbp(16, alpha=4)")
    found = figures.colors([*family, one])
    assert found[one] == one.color
    assert len({found[arm] for arm in family}) == 3
    assert figures.colors([family[1]]) == {family[1]: family[1].color}
