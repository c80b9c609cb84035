"""Bad input gives a clear error at the boundary: what was given, what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import REGISTRY_ROWS, gated_gradient, make_problem, relative_error

import artbp
from artbp import cells, contrib, diagnostics, truncation
from artbp.diagnostics.gate_gradients import gradients_of_gates

LAW = truncation.polynomial(4, 4)


def estimate(problem, **options):
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, **options)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    return estimator.estimate(problem.params, state, problem.stream)


def test_a_stream_without_inputs_needs_its_length():
    with pytest.raises(ValueError, match="num_steps"):
        artbp.Stream(None)
    assert artbp.Stream(None, num_steps=5).num_steps == 5


@pytest.mark.parametrize("num_steps", [0, -1, 2.5, True, 2**31])
def test_lengths_of_a_stream_that_are_refused(num_steps):
    with pytest.raises(ValueError, match=r"num_steps|at least one"):
        artbp.Stream(None, num_steps=num_steps)


def test_empty_and_scalar_inputs():
    with pytest.raises(ValueError, match="at least one time step"):
        artbp.Stream(jnp.zeros((0, 3)))
    with pytest.raises(ValueError, match="scalar"):
        artbp.Stream(jnp.zeros(()))


def test_arrays_of_different_lengths():
    problem = make_problem()
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets[:-1])
    with pytest.raises(ValueError, match=r"Stream.targets has shape \(8, 2\).*num_steps = 9"):
        estimate(problem._replace(stream=stream))


def test_integer_params():
    params = {**make_problem().params, "steps": jnp.arange(3)}
    with pytest.raises(TypeError, match=r"\['steps'\] has dtype int32"):
        estimate(make_problem()._replace(params=params))


@pytest.mark.parametrize("name", artbp.REGISTRY)
def test_init_refuses_integer_params_first(name):
    """Before anything is made of them that fails in another way."""
    problem = make_problem()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, mean_length=3)
    with pytest.raises(TypeError, match=r"params has dtype int32: a gradient exists for float"):
        estimator.init(jnp.arange(3, dtype=jnp.int32), problem.carry, rng_key=jax.random.key(0))


def test_nan_params():
    params = {**make_problem().params, "readout": jnp.full(4, jnp.nan)}
    with pytest.raises(ValueError, match=r"\['readout'\] holds NaN"):
        estimate(make_problem()._replace(params=params))


@pytest.mark.parametrize("policy", ["dynamic", "pow2", "exact"])
def test_a_cell_that_changes_its_carry(policy):
    problem = make_problem()
    for bad, message in (
        (lambda p, s, x: (s.astype(jnp.bfloat16), s), "dtype float32.*dtype bfloat16"),
        (lambda p, s, x: (s[:, :2], s), r"shape \(2, 4\).*shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate(problem._replace(cell=bad), policy=policy)


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_losses_of_the_wrong_shape(policy):
    problem = make_problem()
    matrix = problem._replace(loss_fn=lambda p, y, t: y * p["readout"][None])
    with pytest.raises(ValueError, match="losses of shape"):
        estimate(matrix, policy=policy)
    mean = make_problem(mask=True)._replace(loss_fn=lambda p, y, t: jnp.mean(y @ p["readout"]))
    with pytest.raises(ValueError, match="one loss per row"):
        estimate(mean, policy=policy)


@pytest.mark.parametrize("name", ["bptt", "rtrl"])
def test_a_mask_of_another_number_of_rows(name):
    """The message is that of the mask, not one of the loops around the loss."""
    problem = make_problem()
    stream = artbp.Stream(problem.stream.xs, problem.stream.targets, mask=np.ones((9, 3), bool))
    with pytest.raises(ValueError, match=r"^mask has \(3,\) entries a step, but .*\(2,\)"):
        run_row(name, problem._replace(stream=stream))


@pytest.mark.parametrize("policy", ["pow2", "exact"])
def test_a_host_driven_policy_under_jit(policy):
    problem = make_problem()
    with pytest.raises(ValueError, match="plans segment lengths on the host"):
        jax.jit(lambda: estimate(problem, policy=policy))()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "fast"}, "expected one of 'dynamic', 'pow2', 'exact'"),
        ({"block_size": 0}, "block_size=0"),
        ({"block_size": 2.5}, "block_size=2.5"),
        ({"block_size": True}, "block_size=True"),
        ({"normalizer": 0.0}, "normalizer=0.0"),
        ({"normalizer": float("nan")}, "normalizer=nan"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        estimate(make_problem(), **options)


def test_scratch_of_another_block_size():
    problem = make_problem()
    make = lambda size: artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=size)  # noqa: E731
    state = make(8).init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for scratch in (state.scratch, ()):
        with pytest.raises(ValueError, match=r"state\.scratch does not belong"):
            make(4).estimate(problem.params, state._replace(scratch=scratch), problem.stream)


def test_numpy_integers_are_integers():
    estimate(make_problem(), block_size=np.int64(4), normalizer=np.float32(2.0))


@pytest.mark.parametrize("length", [0, -2, 3.5, "50", None])
def test_truncation_lengths_that_are_refused(length):
    with pytest.raises(ValueError, match="truncation_length"):
        artbp.tbptt(None, None, truncation_length=length)


@pytest.mark.parametrize("policy", ["dynamic", "pow2"])
def test_resets_of_another_batch(policy):
    problem = make_problem()
    for shape in ((9, 1), (9, 3), (9, 2, 1)):
        stream = artbp.Stream(problem.stream.xs, problem.stream.targets, jnp.zeros(shape, bool))
        with pytest.raises(ValueError, match="resets has shape"):
            estimate(problem._replace(stream=stream), policy=policy)


@pytest.mark.parametrize("policy", ["dynamic", "pow2", "exact"])
def test_a_state_beyond_its_stream(policy):
    problem = make_problem(num_steps=20)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=10, policy=policy)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    _, state, _ = estimator.estimate(problem.params, state, problem.stream)
    short = artbp.Stream(problem.stream.xs[:6], problem.stream.targets[:6])
    with pytest.raises(ValueError, match="beyond this stream of 6 steps"):
        estimator.estimate(problem.params, state, short)


def test_a_host_driven_policy_in_a_jit_without_arguments():
    problem = make_problem()
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, policy="pow2")
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="plans segment lengths on the host"):
        jax.jit(lambda: estimator.estimate(problem.params, state, problem.stream)[0])()


def test_a_number_in_place_of_a_law():
    with pytest.raises(TypeError, match="expected a truncation law"):
        artbp.artbp(None, None, 16)


def test_a_normalizer_may_be_an_array_and_mapped_over(float64):
    """It divides the gradient, whatever holds it: a number, an array, or a tracer of `jax.vmap`."""
    problem = make_problem()

    def gradient(normalizer):
        estimator = artbp.tbptt(
            problem.cell, problem.loss_fn, truncation_length=4, normalizer=normalizer
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return jax.tree.leaves(estimator.estimate(problem.params, state, problem.stream)[0])

    expected = gradient(1.0)
    for found in (
        gradient(jnp.asarray(2.0)),
        [g[1] for g in jax.vmap(gradient)(jnp.array([1.0, 2.0]))],
    ):
        for leaf, whole in zip(found, expected, strict=True):
            assert jnp.allclose(2 * leaf, whole, rtol=1e-13)


registry = pytest.mark.parametrize("name", REGISTRY_ROWS)


def run_row(name, problem, **options):
    """One estimate of a row of the registry."""
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 3, **options)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    return estimator.estimate(problem.params, state, problem.stream)


def pass_of(problem):
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    return artbp.run_pass(estimator, problem.params, state, problem.stream)


def runs_of(problem):
    runs = contrib.independent_runs(
        problem.cell, problem.loss_fn, LAW, lambda *given: given[:2], lambda params, aux: aux < 1
    )
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), problem.params)
    state = runs.init(problem.carry, jax.random.split(jax.random.key(0)))
    return runs.run(params, jnp.zeros(2), state, problem.stream)


def clipping_of(problem):
    estimator, keys = artbp.bptt(problem.cell, problem.loss_fn), jax.random.split(jax.random.key(0))
    data = problem.params, problem.carry, problem.stream
    return contrib.clipping_report(estimator, *data, keys, max_norm=1.0)


def shadow_of(problem):
    measure = diagnostics.shadow(problem.cell, problem.loss_fn, window_length=4)
    state = artbp.bptt(problem.cell, problem.loss_fn).init(
        problem.params, problem.carry, rng_key=jax.random.key(0)
    )
    return measure(problem.params, state, problem.stream, jax.random.key(0))


def measured(function, **options):
    """A diagnostic of (cell, loss_fn, params, carry, stream), as a function of a problem."""
    return lambda problem: function(*problem, **options)


KEY = {"rng_key": jax.random.key(0)}
TAKES_A_STREAM = {
    "tbptt": lambda problem: run_row("tbptt", problem),
    "rtrl": lambda problem: run_row("rtrl", problem),
    "run_pass": pass_of,
    "evaluate": measured(artbp.evaluate),
    "independent_runs": runs_of,
    "clipping_report": clipping_of,
    "shadow": shadow_of,
    "gradients_of_gates": measured(gradients_of_gates, gates=jnp.ones((1, 9))),
    "gradient_report": measured(
        diagnostics.gradient_report, window_length=1, truncation_lengths=(), laws=(), **KEY
    ),
    "lag_profile": measured(diagnostics.lag_profile, num_lags=3, **KEY),
    "look_back_profile": measured(
        diagnostics.look_back_profile, truncation_length=2, num_windows=2
    ),
    "truncation_covariance": lambda p: diagnostics.truncation_covariance(*p[:2], LAW, *p[2:]),
    "truncation_variance": lambda p: diagnostics.truncation_variance(*p[:2], LAW, *p[2:], **KEY),
    "sampled_bias": lambda p: contrib.sampled_bias(*p[:2], LAW, *p[2:], num_draws=2, **KEY),
    "with_keys": lambda p: artbp.with_keys(
        p.stream,
        KEY["rng_key"],
        artbp.tbptt(*p[:2], truncation_length=2).init(p.params, p.carry, **KEY),
    ),
    "multi_draw_gradient": lambda p: contrib.multi_draw_gradient(
        *p[:2], LAW, *p[2:], KEY["rng_key"], num_draws=2
    ),
}
takes_a_stream = pytest.mark.parametrize("use", TAKES_A_STREAM.values(), ids=TAKES_A_STREAM)


@takes_a_stream
def test_another_type_in_place_of_a_stream(use):
    problem = make_problem()
    xs, targets = problem.stream.xs, problem.stream.targets
    for given, name in (((xs, targets), "tuple"), (np.asarray(xs), "ndarray"), (None, "NoneType")):
        message = rf"stream is of type {name}; expected an artbp.Stream\. Pass artbp.Stream\(xs"
        with pytest.raises(TypeError, match=message):
            use(problem._replace(stream=given))


@takes_a_stream
def test_lists_and_flags_of_another_dtype_in_a_stream(use):
    problem = make_problem()
    xs, targets = problem.stream.xs, problem.stream.targets
    flags = np.arange(9, dtype=np.int32) % 2
    lists = {"xs": np.asarray(xs).tolist(), "targets": [1.0] * 9, "mask": [True] * 9}
    for fields, message in (
        ({"xs": lists["xs"]}, r"Stream.xs\[0\]\[0\]\[0\] is -?[0-9.]+; .*numpy.asarray\(xs\)"),
        ({"targets": lists["targets"]}, r"Stream.targets\[0\] is 1.0; expected an array"),
        ({"mask": lists["mask"]}, r"Stream.mask\[0\] is True; expected an array"),
        ({"mask": flags}, r"Stream.mask has dtype int32; expected bool or float, the weights"),
        ({"resets": flags}, r"Stream.resets has dtype int32; expected bool\. .*flags != 0"),
        (
            {"resets": flags.astype(np.float32)},
            r"Stream.resets has dtype float32; expected bool\. ",
        ),
    ):
        stream = artbp.Stream(**{"xs": xs, "targets": targets, **fields})
        with pytest.raises(TypeError, match=message):
            use(problem._replace(stream=stream))


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_resets_of_an_unroll_that_are_not_bool(unroll, dtype):
    problem = make_problem()
    data = problem.cell, problem.params, problem.carry, problem.stream.xs
    with pytest.raises(TypeError, match=r"resets has dtype .*; expected bool"):
        unroll(*data, resets=np.zeros(9, dtype))


@registry
def test_params_that_are_no_arrays(name):
    problem = make_problem()
    row = artbp.REGISTRY[name]
    estimator = row.build(problem.cell, problem.loss_fn, 3)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for leaf, kind in ((jnp.tanh, ""), ("relu", "str"), (object(), "object")):
        params = {**problem.params, "act": {"f": leaf}}
        message = rf"params\['act'\]\['f'\] is of type {kind}.*eqx.partition.*nnx.split"
        for call in (
            lambda p=params: estimator.init(p, problem.carry, rng_key=jax.random.key(0)),
            lambda p=params: estimator.estimate(p, state, problem.stream),
            lambda p=params: artbp.run_pass(estimator, p, state, problem.stream),
        ):
            with pytest.raises(TypeError, match=message):
                call()


@pytest.mark.parametrize("name", sorted(artbp.REGISTRY.keys() - {"awd_lstm_bptt"}))
def test_numbers_that_are_no_numbers(name):
    for value in (None, "8", [4, 2], np.ones(2)):
        with pytest.raises(ValueError, match=r"normalizer=.*; expected a finite number above 0\."):
            run_row(name, make_problem(), normalizer=value)


def swapped(problem):
    """The cell with its outputs in the order (y, carry), as haiku has it."""
    return problem._replace(cell=lambda params, carry, x: problem.cell(params, carry, x)[::-1])


@registry
def test_a_cell_that_returns_the_carry_last(name):
    with pytest.raises(ValueError, match=r"changed the structure .*return \(carry, y\) instead"):
        run_row(name, swapped(make_problem("lstm")))


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
def test_an_unroll_of_a_cell_that_returns_the_carry_last(unroll):
    problem = swapped(make_problem("lstm"))
    with pytest.raises(ValueError, match=r"return \(carry, y\) instead"):
        unroll(problem.cell, problem.params, problem.carry, problem.stream.xs)


def test_a_swap_is_suggested_only_where_it_would_fit():
    problem = make_problem("rnn")
    bad = problem._replace(cell=lambda p, s, x: (s[:, :2], x))
    with pytest.raises(ValueError, match="changed the carry") as caught:
        estimate(bad)
    assert "instead" not in str(caught.value)
    other_width = problem._replace(cell=lambda p, s, x: (s[:, :2], s))
    with pytest.raises(ValueError, match=r"changed the carry .*return \(carry, y\) instead"):
        estimate(other_width)


def test_what_a_cell_closes_over_may_be_handed_to_it_in_the_carry():
    """Where a traced array is refused, the message says so; and it is a way that works."""
    params = cells.lstm.init(jax.random.key(0), 2, 3)
    carry, xs = cells.lstm.initial_carry(params, 1), jnp.ones((4, 1, 2))

    def closing(scale):
        def cell(params, carry, x):
            return cells.lstm(params, carry, scale * x)

        return jnp.sum(artbp.fused_unroll(cell, params, carry, xs)[1])

    def handing(scale):
        def cell(params, carry, x):
            carry, scale = carry
            carry, y = cells.lstm(params, carry, scale * x)
            return (carry, scale), y

        return jnp.sum(artbp.fused_unroll(cell, params, (carry, scale), xs)[1])

    with pytest.raises(ValueError, match="in the carry, as a leaf that the cell returns unchanged"):
        jax.grad(closing)(1.0)
    expected = (handing(1.01) - handing(0.99)) / 0.02
    np.testing.assert_allclose(jax.grad(handing)(jnp.asarray(1.0)), expected, rtol=1e-3)


def test_batch_first_arrays():
    """The error of the cell has a note; without a batch axis in the carry it has none."""
    problem = make_problem("gru", 9, batch=3)
    swapped = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), problem.stream.xs)
    stream = artbp.Stream(swapped, problem.stream.targets.swapaxes(0, 1))
    with pytest.raises(TypeError) as caught:
        estimate(problem._replace(stream=stream))
    (note,) = [note for note in caught.value.__notes__ if note.startswith("artbp")]
    assert "has size 9, and that of the carry 3" in note and "time-major" in note
    wrong = problem._replace(params=jax.tree.map(lambda leaf: leaf[:-1], problem.params))
    with pytest.raises(TypeError) as caught:
        estimate(wrong)
    assert not [note for note in caught.value.__notes__ if note.startswith("artbp")]


@pytest.mark.parametrize("name", ["tbptt", "rtrl"])
def test_a_number_in_place_of_a_key(name):
    problem = make_problem()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    with pytest.raises(TypeError, match=r"rng_key is 0; expected a key\. Pass jax\.random\.key"):
        estimator.init(problem.params, problem.carry, rng_key=0)


@pytest.mark.parametrize("name", ["tbptt", "rtrl"])
@pytest.mark.parametrize(
    "gradient",
    [
        jax.grad,
        lambda loss: jax.jit(jax.grad(loss)),
        lambda loss: jax.grad(lambda scale: jnp.sum(jax.vmap(loss)(scale * jnp.ones(2)))),
    ],
    ids=["grad", "jit of grad", "grad of vmap"],
)
def test_reverse_mode_through_an_estimate(name, gradient):
    """The error says where an encoder of the inputs belongs."""
    problem = make_problem()
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 4)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

    def loss(scale):
        stream = artbp.Stream(scale * problem.stream.xs, problem.stream.targets)
        return estimator.estimate(problem.params, state, stream)[2].loss_sum

    with pytest.raises(TypeError, match=r"respect to stream\.xs.*an encoder of the inputs in the"):
        gradient(loss)(1.0)


def test_forward_mode_through_an_estimate(float64):
    """A product with the Hessian."""
    problem = make_problem("gru")
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    gradients = (
        lambda params: estimator.estimate(params, state, problem.stream)[0],
        lambda params: gated_gradient(problem, None, params),
    )
    tangents = jax.tree.map(jnp.cos, problem.params)
    ours, expected = (
        jax.jit(lambda f=f: jax.jvp(f, (problem.params,), (tangents,))[1])() for f in gradients
    )
    assert relative_error(ours, expected) < 1e-12
