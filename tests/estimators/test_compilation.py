"""How often things are traced and compiled, and what vmap does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import gated_gradient, make_problem, relative_error

import artbp
from artbp import cells, truncation
from artbp.estimators import segmentwise
from artbp.unrolls import static_lengths


def run(estimator, problem, count, seed=0):
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(seed))
    lengths = []
    for _ in range(count):
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
        lengths.append(int(info.length))
    return lengths


def counting(problem):
    """The problem with a cell that counts how often Python runs it, that is, is traced."""
    calls = []

    def cell(params, carry, x):
        calls.append(None)
        return problem.cell(params, carry, x)

    return problem._replace(cell=cell), calls


@pytest.fixture
def compilations():
    """Names of the programs that JAX compiles, in order; fails the test if none is seen."""
    names = []

    def listener(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(kwargs.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield names
    jax.monitoring.unregister_event_duration_listener(listener)
    assert names, "JAX no longer reports compilations under this name"


def test_dynamic_traces_once_for_hundreds_of_lengths(compilations):
    problem, calls = counting(make_problem("rnn", 20_000))
    estimator = artbp.artbp(problem.cell, problem.loss_fn, truncation.polynomial(40, 4))
    first = run(estimator, problem, 1)
    traced, compiled = len(calls), len(compilations)
    lengths = run(estimator, problem, 300)
    assert len(set(lengths + first)) > 90
    assert len(calls) == traced
    # No program is compiled for a new length; `init` may compile a copy or two.
    assert sum("estimate" in name for name in compilations) <= 1
    assert len(compilations) - compiled <= 3


def test_exact_compiles_per_length_within_its_cache(monkeypatch):
    problem, calls = counting(make_problem("rnn", 500))
    options = {"policy": "exact", "block_size": 256}
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.replay([5, 6, 5, 6, 7]), **options
    )
    run(estimator, problem, 5)
    three_lengths = len(calls)
    run(estimator, problem, 20)
    assert len(calls) == three_lengths
    # The control: with room for one length, each change of length is compiled again.
    monkeypatch.setattr(static_lengths, "_CACHE_SIZE", 1)
    small, calls = counting(make_problem("rnn", 500))
    estimator = artbp.artbp(small.cell, small.loss_fn, truncation.replay([5, 6]), **options)
    run(estimator, small, 2)
    two_lengths = len(calls)
    run(estimator, small, 2)
    assert len(calls) > two_lengths


def test_pow2_needs_two_programs_per_power(compilations):
    """At most 2·(⌊log2 longest⌋ + 1) programs, whatever the lengths."""
    problem = make_problem("rnn", 2000)
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.replay(list(range(1, 36))), policy="pow2"
    )
    lengths = run(estimator, problem, 35)
    assert sorted(lengths) == list(range(1, 36))
    programs = [name for name in compilations if "_forward" in name or "_backward" in name]
    assert 6 < len(programs) <= 2 * 6  # 35 < 2⁶


def test_pieces_add_up():
    for block_size in (1, 3, 4, 256):
        for length in range(1, 600):
            for split in (static_lengths.exact_pieces, static_lengths.pow2_pieces):
                pieces = split(length, block_size)
                assert sum(pieces) == length
                assert all(1 <= piece <= block_size for piece in pieces)


def test_pieces_in_order():
    """Only the last piece need not run its forward pass twice, so it is the largest power."""
    assert static_lengths.exact_pieces(7, 3) == [3, 3, 1]
    assert static_lengths.pow2_pieces(13, 8) == [1, 4, 8]
    assert static_lengths.pow2_pieces(13, 4) == [1, 4, 4, 4]


@pytest.mark.parametrize("nested", [False, True])
def test_vmap_over_keys_equals_a_loop_over_keys(nested, float64):
    """Rows of different lengths in lockstep, in blocks of 3, once and twice mapped."""
    problem = make_problem("gru", 30, resets=True, mask=True)
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.polynomial(6, 4), block_size=3
    )

    def three_segments(key):
        def segment(state, _):
            grads, state, info = estimator.estimate(problem.params, state, problem.stream)
            return state, (grads, state._replace(scratch=(), rng_key=()), info)

        state = estimator.init(problem.params, problem.carry, rng_key=key)
        return jax.lax.scan(segment, state, length=3)[1]

    keys = jax.random.split(jax.random.key(0), (2, 3) if nested else (6,))
    mapped = functools.reduce(lambda f, _: jax.vmap(f), range(keys.ndim), three_segments)
    together = jax.tree.map(np.asarray, jax.jit(mapped)(keys))
    one = jax.jit(three_segments)
    lengths = set()
    for i, key in enumerate(keys.reshape(-1)):
        row = jax.tree.map(
            lambda leaf, i=i: leaf.reshape(-1, *leaf.shape[keys.ndim :])[i], together
        )
        alone = one(key)
        assert relative_error(row, alone) < 1e-13
        lengths.add(int(alone[2].length[0]))
    assert len(lengths) > 1


def test_vmap_over_params_and_streams(float64):
    """Everything batched: params, data and keys, as for an ensemble."""
    problems = [make_problem("rnn", 12, seed=seed) for seed in range(3)]
    estimator = artbp.artbp(
        problems[0].cell, problems[0].loss_fn, truncation.geometric(4), block_size=4
    )

    def first_segment(params, carry, xs, targets, key):
        state = estimator.init(params, carry, rng_key=key)
        return estimator.estimate(params, state, artbp.Stream(xs, targets))[0]

    rows = [
        (p.params, p.carry, p.stream.xs, p.stream.targets, jax.random.key(i))
        for i, p in enumerate(problems)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    mapped = jax.vmap(first_segment)(*stacked)
    for i, row in enumerate(rows):
        assert (
            relative_error(jax.tree.map(lambda g, i=i: g[i], mapped), first_segment(*row)) < 1e-13
        )


def test_vmap_does_not_select_over_buffers(monkeypatch):
    """The scratch buffers of a batched kernel are never the operand of a select."""
    problem = make_problem("rnn", 64)
    block_size = 37
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.polynomial(6, 4), block_size=block_size
    )

    def selects_over_buffers():
        keys = jax.random.split(jax.random.key(0), 5)

        def one(key):
            state = estimator.init(problem.params, problem.carry, rng_key=key)
            return estimator.estimate(problem.params, state, problem.stream)

        jaxpr = jax.make_jaxpr(lambda keys: jax.vmap(one)(keys))(keys)
        return [
            eqn
            for eqn in _equations(jaxpr.jaxpr)
            if eqn.primitive.name == "select_n" and eqn.outvars[0].aval.shape[:2] == (5, block_size)
        ]

    assert selects_over_buffers() == []
    # The control: without the batching rule there are some.
    monkeypatch.setattr(
        segmentwise, "lockstep", lambda kernel: functools.partial(kernel, axis_names=())
    )
    jax.clear_caches()
    assert selects_over_buffers()


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for param in jax.tree.leaves(
            eqn.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            inner = getattr(param, "jaxpr", param)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_estimate_inside_scan_and_grad_of_nothing():
    """A whole run as one program: scan over segments with a donated state."""
    problem = make_problem("lstm", 50)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, truncation.polynomial(5, 4))
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

    @functools.partial(jax.jit, donate_argnums=1)
    def train(params, state):
        def body(carried, _):
            params, state = carried
            grads, state, info = estimator.estimate(params, state, problem.stream)
            return (jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), state), info.loss_sum

        return jax.lax.scan(body, (params, state), length=30)

    (params, _), losses = train(problem.params, state)
    assert np.isfinite(losses).all()
    assert relative_error(params, problem.params) > 1e-3


@pytest.mark.parametrize("jit", [False, True])
def test_vmap_over_what_the_cell_and_the_loss_close_over(jit, float64):
    """A sweep of hyperparameters that reach the cell and the loss through closures."""
    problem = make_problem("rnn", 12)

    def run_with(scale, key):
        estimator = artbp.artbp(
            lambda p, c, x: problem.cell(p, scale * c, x),
            lambda p, y, t: scale * problem.loss_fn(p, y, t),
            truncation.polynomial(3, 4),
            block_size=3,
        )
        state = estimator.init(problem.params, problem.carry, rng_key=key)
        return estimator.estimate(problem.params, state, problem.stream)[0]

    scales, keys = jnp.array([0.5, 1.0, 1.5]), jax.random.split(jax.random.key(0), 3)
    mapped = jax.vmap(run_with)
    rows = (jax.jit(mapped) if jit else mapped)(scales, keys)
    for i in range(3):
        alone = run_with(scales[i], keys[i])
        assert relative_error(jax.tree.map(lambda g, i=i: g[i], rows), alone) < 1e-13


@pytest.mark.parametrize("looks_back", [False, True])
def test_vmap_over_the_hazard_of_a_law(looks_back, float64):
    problem = make_problem("rnn", 12)

    def run_with(hazard):
        class Constant(truncation.TruncationLaw):
            def hazard(self, k):
                return hazard + jnp.zeros(jnp.shape(k))

        if looks_back:
            estimator = artbp.unbiased_tbptt(
                problem.cell,
                problem.loss_fn,
                Constant(),
                truncation_length=2,
                stored_windows=2,
                stored_carries=6,
            )
        else:
            estimator = artbp.artbp(problem.cell, problem.loss_fn, Constant(), block_size=3)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(3))
        total = jax.tree.map(jnp.zeros_like, problem.params)
        for _ in range(4):
            grads, state, _ = estimator.estimate(problem.params, state, problem.stream)
            total = jax.tree.map(jnp.add, total, grads)
        return total

    hazards = jnp.array([0.3, 0.6])
    rows = jax.vmap(run_with)(hazards)
    for i in range(2):
        alone = run_with(hazards[i])
        assert relative_error(jax.tree.map(lambda g, i=i: g[i], rows), alone) < 1e-13


def make_second_segment(cell, loss_fn):
    """Returns `lengths -> gradient` of the second of two segments, of a stream of four steps."""

    def second_segment(lengths):
        estimator = artbp.artbp(cell, loss_fn, truncation.replay(lengths), block_size=1)
        state = estimator.init(jnp.float64(1.0), jnp.float64(0.0), rng_key=jax.random.key(0))
        stream = artbp.Stream(None, num_steps=4)
        _, state, _ = estimator.estimate(jnp.float64(1.0), state, stream)
        return estimator.estimate(jnp.float64(1.0), state, stream)[0]

    return second_segment


@pytest.mark.parametrize("in_cell", [False, True])
def test_vmap_ignores_what_an_ended_row_would_have_done(in_cell, float64):
    """A cell that is NaN beyond the stream: rows that have ended are not stepped into it."""

    def cell(params, carry, x):
        carry = carry + 1
        return carry, jnp.sqrt(4.5 - carry) * (params if in_cell else 1)

    def loss_fn(params, y, target):
        return y if in_cell else params * y

    second_segment = make_second_segment(cell, loss_fn)
    lengths = jnp.array([[3, 1], [1, 3]], jnp.int32)
    expected = [second_segment(row) for row in lengths]
    np.testing.assert_allclose(jax.vmap(second_segment)(lengths), expected)


def test_vmap_lets_nothing_flow_back_from_behind_an_ended_row(float64):
    """As above, with params in the carry: NaN behind the end must not enter the recursion."""

    def cell(params, carry, x):
        carry = carry + params
        return carry, jnp.sqrt(4.5 - carry)

    second_segment = make_second_segment(cell, lambda params, y, target: y)
    lengths = jnp.array([[3, 1], [1, 3]], jnp.int32)
    expected = [second_segment(row) for row in lengths]
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(jax.vmap(second_segment)(lengths), expected)


def test_a_function_that_picks_parameters_may_close_over_what_is_mapped(float64):
    problem = make_problem("lstm", 12)

    def scaled(scale):
        select = problem.cell.select
        return cells.lstm.with_params(
            lambda params: jax.tree.map(lambda leaf: scale * leaf, select(params))
        )

    def gradient(scale):
        estimator = artbp.bptt(scaled(scale), problem.loss_fn)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[0]

    scales = jnp.array([0.5, 1.5])
    rows = jax.vmap(gradient)(scales)
    for i, scale in enumerate(scales):
        expected = gated_gradient(problem._replace(cell=scaled(scale)), None)
        assert relative_error(jax.tree.map(lambda g, i=i: g[i], rows), expected) < 1e-12


def test_a_class_with_a_recurrence_that_closes_over_what_is_mapped_is_refused():
    problem = make_problem("lstm", 12)

    def gradient(scale):
        class Scaled:
            recurrence = problem.cell.recurrence

            def __call__(self, params, carry, x):
                return problem.cell(params, jax.tree.map(lambda c: scale * c, carry), x)

        estimator = artbp.bptt(Scaled(), problem.loss_fn)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[0]

    with pytest.raises(ValueError, match=r"closes over a traced array.* in params, or.* the carry"):
        jax.vmap(gradient)(jnp.array([0.5, 1.5]))


@pytest.mark.parametrize("policy", [None, "exact"])
def test_the_state_of_several_runs_is_named(policy):
    problem = make_problem("rnn", 6)
    estimators = [
        artbp.bptt(problem.cell, problem.loss_fn, policy=policy),
        artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=2, k2=4),
    ]
    keys = jax.random.split(jax.random.key(0), 3)
    for estimator in estimators:
        init = lambda key, init=estimator.init: init(problem.params, problem.carry, rng_key=key)  # noqa: E731
        states = jax.vmap(init)(keys)
        with pytest.raises(ValueError, match=r"several runs.*jax\.vmap"):
            estimator.estimate(problem.params, states, problem.stream)
