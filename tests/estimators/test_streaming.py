"""The estimators as they walk along a stream, for every compilation policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from problems import (
    CELLS,
    ages,
    as_function,
    gated_gradient,
    make_problem,
    one_pass,
    relative_error,
    summed_loss,
)

import artbp
from artbp import cells, truncation

POLICIES = ("dynamic", "pow2", "exact")
LAW = truncation.polynomial(6, 4)
policies = pytest.mark.parametrize("policy", POLICIES)


def gates_of(lengths, law=LAW):
    """ARTBP's gates along the given segments."""
    pattern = np.concatenate([np.arange(1, length + 1) == length for length in lengths])
    return np.where(pattern, 0.0, law.compensation(ages(pattern)))


KERNELS = [
    *[("dynamic", 3), ("dynamic", 256), ("pow2", 3), ("exact", 4)],
    *[("dynamic", 1), ("dynamic", 4), ("dynamic", 9), ("pow2", 256), ("exact", 256)],
]


@pytest.mark.parametrize(
    ("name", "policy", "block_size"),
    [
        # Cells whose steps are run by the same code as another's: fewer block sizes.
        pytest.param(name, *kernel, marks=[pytest.mark.slow] if kernel in KERNELS[4:] else [])
        for name in [*CELLS, "derived lstm", "derived gru"]
        for kernel in (KERNELS if name in ("lstm", "derived lstm") else KERNELS[:4])
    ],
)
def test_replay_equals_the_gated_unroll(name, block_size, policy, float64):
    """Segments of 5 times the block included: 15 steps in blocks of 3, and of 1.

    Not all with resets: a reset hides a wrong carry before it.
    """
    problem = make_problem(name.split()[-1], 23, resets=block_size == 4, mask=True)
    problem = as_function(problem) if name.startswith("derived") else problem
    lengths = [15, 1, 5, 2]
    estimator = artbp.artbp(
        problem.cell,
        problem.loss_fn,
        truncation.replay(lengths, LAW),
        policy=policy,
        block_size=block_size,
    )
    total, infos, state = one_pass(estimator, problem)
    assert relative_error(total, gated_gradient(problem, gates_of(lengths))) < 1e-13
    assert [int(info.length) for info in infos] == lengths
    # The control: one boundary shifted by one step is seen.
    assert relative_error(total, gated_gradient(problem, gates_of([14, 2, 5, 2]))) > 1e-3
    # At the end of the stream the next segment starts at the beginning.
    assert state.position == 0
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state.carry, problem.carry))


@policies
def test_segment_by_segment(policy, float64):
    """Each gradient is that of its segment alone, and each carry that of the unroll."""
    problem = make_problem("lstm", 20)
    lengths = [7, 9, 4]
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.replay(lengths, LAW), policy=policy, block_size=4
    )
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    start, carry = 0, problem.carry
    for length in lengths:
        steps = slice(start, start + length)
        part = problem._replace(
            carry=carry,
            stream=artbp.Stream(problem.stream.xs[steps], problem.stream.targets[steps]),
        )
        expected = gated_gradient(part, LAW.compensation(np.arange(1, length + 1)))
        grads, state, info = estimator.estimate(problem.params, state, problem.stream)
        assert relative_error(grads, expected) < 1e-13
        carry, _ = artbp.unroll(problem.cell, problem.params, carry, part.stream.xs)
        if not info.end_of_stream:
            assert relative_error(state.carry, carry) < 1e-13
        assert info.num_losses == 2 * length
        np.testing.assert_allclose(info.max_compensation, LAW.compensation(1), rtol=1e-12)
        np.testing.assert_allclose(info.max_weight, 1 / LAW.survival(length - 1), rtol=1e-12)
        start += length


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_own_boundaries_are_those_of_sample_gates(policy, float64):
    """Over two passes: the zeros of the law's gates, but for the ends of the stream."""
    problem = make_problem("rnn", 40)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, policy=policy, block_size=4)
    key = jax.random.key(5)
    total, infos, state = one_pass(estimator, problem, key)
    gates = LAW.sample_gates(key, 40)
    assert relative_error(total, gated_gradient(problem, gates)) < 1e-13
    cuts = np.cumsum([info.length for info in infos])
    np.testing.assert_array_equal(cuts[:-1], np.flatnonzero(gates[:-1] == 0) + 1)
    assert [bool(info.end_of_stream) for info in infos] == [False] * (len(infos) - 1) + [True]
    assert state.num_estimates == len(infos)
    # The second pass draws anew.
    lengths = [int(info.length) for info in infos]
    again = []
    while not again or sum(again) < 40:
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
        again.append(int(info.length))
    assert sum(again) == 40
    assert again != lengths


def test_a_resumed_state_goes_on_with_the_same_draws():
    """Only position, segment, carry and key are needed: scratch may be made afresh."""
    problem = make_problem("gru", 60)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=8)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(5))
    for _ in range(3):
        _, state, _ = estimator.estimate(problem.params, state, problem.stream)
    fresh = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(99))
    dirty = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), fresh.scratch)
    resumed = jax.tree.map(jnp.copy, state._replace(scratch=dirty))
    for _ in range(6):
        grads, state, info = estimator.estimate(problem.params, state, problem.stream)
        grads_, resumed, info_ = estimator.estimate(problem.params, resumed, problem.stream)
        for a, b in zip(
            jax.tree.leaves((grads, info)), jax.tree.leaves((grads_, info_)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_drawn_lengths_of_the_estimator_follow_the_law():
    """Mean length over many segments, windows and passes, within five standard errors."""
    law = truncation.polynomial(6, 6)
    stream = artbp.Stream(None, num_steps=50_000)
    estimator = artbp.artbp(lambda p, s, x: (p * s, s), lambda p, y, t: y, law)
    params, carry = jnp.float32(0.5), jnp.float32(1.0)
    state = estimator.init(params, carry, rng_key=jax.random.key(3))

    def segment(state, _):
        _, state, info = estimator.estimate(params, state, stream)
        return state, (info.length, info.end_of_stream)

    _, (lengths, ends) = jax.jit(lambda s: jax.lax.scan(segment, s, length=20_000))(state)
    lengths = np.asarray(lengths)[~np.asarray(ends)]
    k = np.arange(0, 100_000)
    second = np.sum((2 * k + 1) * law.survival(k))  # E[L²] = Σ (2k + 1) S(k)
    deviation = np.sqrt((second - 36) / lengths.size)
    assert abs(lengths.mean() - 6) < 5 * deviation
    assert abs(lengths.mean() - 6.5) > 5 * deviation  # a law half a step longer is rejected


def test_tbptt_equals_a_python_loop_with_stop_gradient(float64):
    problem = make_problem("rnn", 17)
    stream = problem.stream
    for period in (1, 4, 30):

        def loss(params, period=period):
            carry, total = problem.carry, 0.0
            for t in range(17):
                if t % period == 0:
                    carry = jax.lax.stop_gradient(carry)
                carry, y = problem.cell(params, carry, stream.xs[t])
                total += jnp.sum(problem.loss_fn(params, y, stream.targets[t]))
            return total

        expected = jax.grad(loss)(problem.params)
        for policy in POLICIES:
            estimator = artbp.tbptt(
                problem.cell,
                problem.loss_fn,
                truncation_length=period,
                policy=policy,
                block_size=4,
            )
            total, infos, _ = one_pass(estimator, problem)
            assert relative_error(total, expected) < 1e-13
            assert sum(int(info.length) for info in infos) == 17  # the rest is flushed


def test_tbptt_draws_its_offset_anew_in_each_pass():
    problem = make_problem("rnn", 23)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=5, draw_offset=True)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    firsts = []
    for _ in range(40):
        lengths, end = [], False
        while not end:
            _, state, info = estimator.estimate(problem.params, state, problem.stream)
            lengths.append(int(info.length))
            end = bool(info.end_of_stream)
        assert sum(lengths) == 23
        assert all(length == 5 for length in lengths[1:-1])
        firsts.append(lengths[0])
    assert set(firsts) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", CELLS)
def test_bptt_against_finite_differences(name, float64):
    """Central differences of the whole loss along a random direction."""
    problem = make_problem(name, 12, resets=True)
    total, infos, _ = one_pass(artbp.bptt(problem.cell, problem.loss_fn, block_size=5), problem)
    assert len(infos) == 1
    direction = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(4), leaf.shape, leaf.dtype), problem.params
    )

    @jax.jit
    def loss(step):
        params = jax.tree.map(lambda p, d: p + step * d, problem.params, direction)
        return summed_loss(problem, params)

    step = 1e-5
    numeric = (loss(step) - loss(-step)) / (2 * step)
    exact = sum(
        jnp.vdot(g, d)
        for g, d in zip(jax.tree.leaves(total), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(exact, numeric, rtol=1e-7)


def test_normalizer_is_a_constant_on_the_gradient(float64):
    problem = make_problem("rnn", 20)
    key = jax.random.key(0)
    plain, infos, _ = one_pass(artbp.artbp(problem.cell, problem.loss_fn, LAW), problem, key)
    halved, infos_, _ = one_pass(
        artbp.artbp(problem.cell, problem.loss_fn, LAW, normalizer=2.0), problem, key
    )
    assert relative_error(jax.tree.map(lambda g: 2 * g, halved), plain) < 1e-15
    assert [float(i.loss_sum) for i in infos] == [float(i.loss_sum) for i in infos_]


def test_online_updates_use_the_current_params(float64):
    """With an update after each segment: equal to segments by hand with moving params."""
    problem = make_problem("rnn", 15)
    lengths = [4, 6, 5]

    def update(params, grads):
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)

    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.replay(lengths, LAW), block_size=4
    )
    total, _, _ = one_pass(estimator, problem, update=update)
    params, carry, start = problem.params, problem.carry, 0
    expected = jax.tree.map(jnp.zeros_like, params)
    for length in lengths:
        steps = slice(start, start + length)
        part = problem._replace(
            carry=carry,
            stream=artbp.Stream(problem.stream.xs[steps], problem.stream.targets[steps]),
        )
        grads = gated_gradient(part, LAW.compensation(np.arange(1, length + 1)), params)
        carry, _ = artbp.unroll(problem.cell, params, carry, part.stream.xs)
        params = update(params, grads)
        expected = jax.tree.map(jnp.add, expected, grads)
        start += length
    assert relative_error(total, expected) < 1e-13


def test_a_flax_cell_drops_in():
    """Any function of the signature is a cell: here flax's LSTM, with its own carry."""
    import flax.linen as nn

    module = nn.OptimizedLSTMCell(features=4)
    xs = jax.random.normal(jax.random.key(0), (12, 2, 3))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        carry = module.initialize_carry(jax.random.key(1), xs[0].shape)
        params = module.init(jax.random.key(2), carry, xs[0])
        estimator = artbp.artbp(
            module.apply,
            lambda params, y, target: jnp.sum((y - 1) ** 2, axis=-1),
            truncation.polynomial(4, 4),
        )
        state = estimator.init(params, carry, rng_key=jax.random.key(3))
        grads, _, info = estimator.estimate(params, state, artbp.Stream(xs))
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    assert info.num_losses == 2 * info.length


def test_randomness_of_the_cell_travels_in_xs(float64):
    """Keys as inputs: every policy and the unroll see the same noise."""
    keys = jax.random.split(jax.random.key(8), 14)

    def cell(params, carry, key):
        kept = jax.random.bernoulli(key, 0.8, carry.shape)
        carry = jnp.tanh(params * jnp.where(kept, carry, 0.0) + 0.3)
        return carry, carry

    carry, params = jnp.linspace(-1.0, 1.0, 3), jnp.asarray(1.2)
    gates = gates_of([9, 5])

    def loss(params):
        _, ys = artbp.unroll(cell, params, carry, keys, gates=gates)
        return jnp.sum(ys**2)

    expected = jax.grad(loss)(params)
    for policy in POLICIES:
        estimator = artbp.artbp(
            cell,
            lambda params, y, target: y**2,
            truncation.replay([9, 5], LAW),
            policy=policy,
            block_size=4,
        )
        state = estimator.init(params, carry, rng_key=jax.random.key(0))
        total = 0.0
        for _ in range(2):
            grads, state, _ = estimator.estimate(params, state, artbp.Stream(keys))
            total += grads
        np.testing.assert_allclose(total, expected, rtol=1e-12)


@policies
def test_missing_observations_are_masked(policy, float64):
    """NaN targets where the mask is False: the gradient is that of any finite value there."""
    problem = make_problem("rnn", 12, mask=True)
    stream = problem.stream
    missing = jnp.where(stream.mask, stream.targets, jnp.nan)
    assert jnp.isnan(missing).any()
    estimator = artbp.bptt(problem.cell, problem.loss_fn, policy=policy)
    expected, _, _ = one_pass(estimator, problem)
    with_nan = problem._replace(stream=artbp.Stream(stream.xs, missing, mask=stream.mask))
    found, _, _ = one_pass(estimator, with_nan)
    assert relative_error(found, expected) < 1e-14


@pytest.mark.parametrize("policy", ["dynamic", "exact"])
def test_masks_and_resets_shared_by_the_rows(policy, float64):
    """[T] means the same as [T, B] with equal rows."""
    problem = make_problem("gru", 15)
    stream = problem.stream
    flags = jnp.arange(15) % 5 == 3
    rows = jnp.broadcast_to(flags[:, None], (15, 2))
    totals = [
        one_pass(
            artbp.artbp(problem.cell, problem.loss_fn, LAW, policy=policy, block_size=4),
            problem._replace(stream=artbp.Stream(stream.xs, stream.targets, resets=f, mask=~f)),
        )[0]
        for f in (flags, rows)
    ]
    assert relative_error(*totals) < 1e-14


def test_a_law_of_ones_own(float64):
    """`hazard` is all that a law needs; its draws and its compensation follow."""

    class Alternating(truncation.TruncationLaw):
        """A boundary after each second step with probability 1/2."""

        def hazard(self, k):
            return (
                np.where(np.asarray(k) % 2 == 0, 0.5, 0.0)
                if isinstance(k, np.ndarray)
                else (jnp.where(k % 2 == 0, 0.5, 0.0))
            )

    problem = make_problem("rnn", 40)
    law = Alternating()
    key = jax.random.key(2)
    total, infos, _ = one_pass(artbp.artbp(problem.cell, problem.loss_fn, law), problem, key)
    assert all(int(info.length) % 2 == 0 for info in infos)
    assert relative_error(total, gated_gradient(problem, law.sample_gates(key, 40))) < 1e-13


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_a_bfloat16_model(policy):
    """Close to float32: the gates themselves are never rounded to bfloat16."""
    problem = make_problem("lstm", 30)

    def cast(tree, dtype):
        return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)

    def gradient(dtype):
        stream = cast(problem.stream, dtype)
        p = problem._replace(
            params=cast(problem.params, dtype), carry=cast(problem.carry, dtype), stream=stream
        )
        estimator = artbp.artbp(
            p.cell, p.loss_fn, truncation.replay([30], LAW), policy=policy, block_size=8
        )
        return cast(one_pass(estimator, p)[0], jnp.float32)

    assert relative_error(gradient(jnp.bfloat16), gradient(jnp.float32)) < 0.05


def test_sums_over_steps_are_float32_or_wider():
    """4096 gradients of 1 each: a sum of bfloat16 would stop to grow at 2048."""
    estimator = artbp.bptt(lambda params, carry, x: (carry, params), lambda params, y, target: y)
    params = jnp.ones((), jnp.bfloat16)
    state = estimator.init(params, jnp.zeros((), jnp.bfloat16), rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(params, state, artbp.Stream(None, num_steps=4096))
    assert grads.dtype == jnp.bfloat16
    assert grads == 4096


@pytest.mark.parametrize("block_size", [8, 12, 256])
def test_a_carry_never_meets_an_input_that_is_not_its_own(block_size, float64):
    """The last chunk of a block of 12 is half full; its carry with the next input has no loss."""

    def cell(params, carry, x):
        return x, params * jnp.log(jnp.abs(x - carry))

    xs = jnp.tile(jnp.array([0.0, 1.0]), 20)[:, None] * 3
    estimator = artbp.bptt(cell, lambda params, y, target: y, block_size=block_size)
    state = estimator.init(jnp.array(1.0), jnp.array([3.0]), rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(jnp.array(1.0), state, artbp.Stream(xs, xs))
    np.testing.assert_allclose(grads, 40 * np.log(3), rtol=1e-12)


def draw_gamma(rng_key, shape):
    return jax.random.gamma(rng_key, 2.0, shape)


@pytest.mark.parametrize("draw", [jax.random.normal, draw_gamma])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_the_way_back_sees_the_noise_of_the_forward_pass(impl, draw, float64):
    """Under `jax.vmap`, some kinds of keys draw other bits than one by one."""

    def cell(params, carry, rng_key):
        noise = jax.jit(draw, static_argnums=1)(rng_key, carry.shape)
        carry = jnp.tanh(params * carry + noise)
        return carry, carry

    keys = jax.random.split(jax.random.key(0, impl=impl), 20)
    params, carry = jnp.array(0.7), jnp.ones((2, 3))
    estimator = artbp.bptt(cell, lambda params, y, target: jnp.sum(y, axis=-1))
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(params, state, artbp.Stream(keys, jnp.zeros(20)))

    def total(params):
        return jnp.sum(artbp.unroll(cell, params, carry, keys)[1])

    np.testing.assert_allclose(grads, jax.grad(total)(params), rtol=1e-12)


# Fewer symbols than hidden units, and more.
@pytest.mark.parametrize(
    ("policy", "num_symbols"), [("dynamic", 4), ("dynamic", 12), ("pow2", 4), ("exact", 12)]
)
def test_symbols_as_inputs_of_an_lstm_with_params_in_any_mapping(policy, num_symbols, float64):
    cell = cells.lstm.with_params(lambda params: params["cell"])
    own = cells.lstm.init(jax.random.key(0), num_symbols, 8, dtype=jnp.float64)
    params = FrozenDict({"cell": own, "readout": jnp.ones(8)})
    # −1 and num_symbols are no symbols: as for `jax.nn.one_hot`, nothing is added.
    symbols = jax.random.randint(jax.random.key(1), (30, 2), -1, num_symbols + 1)
    carry = cells.lstm.initial_carry(own, 2)
    estimator = artbp.bptt(cell, lambda params, y, target: y @ params["readout"], policy=policy)
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(params, state, artbp.Stream(symbols, symbols))

    def total(params):
        xs = jax.nn.one_hot(symbols, num_symbols, dtype=float)
        return jnp.sum(artbp.unroll(cell, params, carry, xs)[1] @ params["readout"])

    assert relative_error(grads, jax.grad(total)(params)) < 1e-12


def test_recomputation_does_not_depend_on_the_stream():
    """Steps of the cell in a segment of 5 blocks: the same in a short and in a long stream."""

    def steps(num_steps):
        ran = []

        def cell(params, carry, x):
            jax.debug.callback(lambda: ran.append(None))
            return params * carry, carry

        estimator = artbp.artbp(
            cell, lambda p, y, t: y, truncation.replay([20, 1]), block_size=4, policy="dynamic"
        )
        state = estimator.init(jnp.float32(0.9), jnp.float32(1), rng_key=jax.random.key(0))
        out = estimator.estimate(jnp.float32(0.9), state, artbp.Stream(None, num_steps=num_steps))
        jax.block_until_ready(out)
        jax.effects_barrier()
        return len(ran)

    assert steps(21) == steps(100_000)
