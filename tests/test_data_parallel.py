"""Rows split over 8 virtual devices: the gradients of one device, and one sum over the devices."""

import os

import jax
import numpy as np
import pytest
from problems import make_problem, run_python

import artbp

# It needs a process of its own: the number of devices is read once.
PROGRAM = """
import jax, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import artbp
from artbp import truncation
from collectives import collectives
from problems import as_function, make_problem, relative_error

def estimators(problem):
    functions = problem.cell, problem.loss_fn
    window = {"truncation_length": 9, "normalizer": 80.0}
    return {
        "tbptt": artbp.tbptt(*functions, **window),
        "artbp": artbp.artbp(
            *functions, truncation.polynomial(6, 4), normalizer=80.0, block_size=8
        ),
        "unbiased_tbptt": artbp.unbiased_tbptt(*functions, truncation.polynomial(1.5, 4), **window),
    }

optimizer = optax.adam(1e-2)

def train(problem, estimate, state, on_all_devices=lambda tree: tree):
    \"\"\"(the params, gradient and info of the second of two updates, the compiled update).\"\"\"
    def update(params, state, opt_state, stream):
        grads, state, info = estimate(params, state, stream)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state, grads, info

    params, opt_state = on_all_devices((problem.params, optimizer.init(problem.params)))
    compiled = jax.jit(update).lower(params, state, opt_state, problem.stream).compile()
    for _ in range(2):
        params, state, opt_state, grads, info = compiled(params, state, opt_state, problem.stream)
    return (params, grads, info), compiled.as_text()

def begin(estimator, problem):
    return estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

def by_hand(estimator, problem, mesh):
    \"\"\"`jax.shard_map` around an estimate of one device, as a user may write it.\"\"\"
    begun = begin(estimator, problem)
    of_buffers = jax.tree.map(
        lambda leaf: P(None, "rows") if leaf.ndim > 1 else P(), (begun.scratch, begun.inner_state)
    )
    rows, every = P("rows"), P()
    specs = begun._replace(
        position=every, num_estimates=every, num_steps=every, rng_key=every, carry=rows,
        first_carry=rows, initial_carry=rows, scratch=of_buffers[0], inner_state=of_buffers[1],
    )
    estimate = jax.shard_map(
        estimator.estimate, mesh=mesh, in_specs=(every, specs, P(None, "rows")),
        out_specs=(every, specs, every),
    )
    return estimate, begun

def check(problem, name, mode, tolerance, expected):
    kind = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(kind,))
    put = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    split = problem._replace(
        params=put(problem.params, P()),
        carry=put(problem.carry, P("rows")),
        stream=put(problem.stream, P(None, "rows")),
    )
    estimator = estimators(split)[name]
    if mode == "shard_map":
        estimate, state = by_hand(estimator, problem, mesh)
    else:
        estimator = artbp.data_parallel(estimator, mesh, "rows")
        estimate, state = estimator.estimate, begin(estimator, split)
    found, text = train(split, estimate, state, lambda tree: put(tree, P()))
    for part, of_one_device in zip(found, expected, strict=True):
        assert relative_error(part, of_one_device) < tolerance, (name, mode)
    once, in_loops = collectives(text)
    assert not in_loops, (name, mode, in_loops)
    gradients = [result for result in once if result.startswith("(f")]
    counts = [result for result in once if result == "s32[]"]
    assert len(gradients) == len(counts) == 1 and len(once) == 2, (name, mode, once)

def small_problem():
    return make_problem("rnn", 20, batch=16, mask=True)

def expected(problem, name):
    estimator = estimators(problem)[name]
    return train(problem, estimator.estimate, begin(estimator, problem))[0]
"""
EIGHT = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"


MODES = ("auto", "explicit", "shard_map")
SOME = {"artbp": ("explicit",), "tbptt": ("auto",), "unbiased_tbptt": ("shard_map",)}


@pytest.mark.parametrize(
    "modes",
    [
        pytest.param(SOME, id="some"),
        pytest.param(dict.fromkeys(SOME, MODES), id="all", marks=pytest.mark.slow),
    ],
)
def test_one_sum_over_the_devices_an_update(modes):
    """Three estimators and three ways to split the rows; then float64 and a derived recurrence."""
    run_python(
        PROGRAM
        + f"""
problem = small_problem()
for name, modes in {modes}.items():
    of_one_device = expected(problem, name)
    for mode in modes:
        check(problem, name, mode, 1e-6, of_one_device)
with jax.enable_x64(True):
    problem = as_function(small_problem())
    check(problem, "tbptt", "auto", 1e-12, expected(problem, "tbptt"))
""",
        XLA_FLAGS=EIGHT,
    )


ROWS = """
import dataclasses, jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType
import artbp
from problems import make_problem, relative_error

jax.config.update("jax_enable_x64", True)
B = 4
problem = make_problem("rnn", 5, batch=B)
meshes = {n: jax.make_mesh((n,), ("rows",), (AxisType.Auto,)) for n in (1, 2, 4)}

def split(estimator, num_devices=2):
    return artbp.data_parallel(estimator, meshes[num_devices], "rows")

def begin(estimator, problem):
    return estimator.init(problem.params, problem.carry, rng_key=jax.random.key(3))

def gradients(estimator, problem, num_estimates):
    \"\"\"Of the first estimates; the state goes from one to the next.\"\"\"
    state, step, found = begin(estimator, problem), jax.jit(estimator.estimate), []
    for _ in range(num_estimates):
        grads, state, _ = step(problem.params, state, problem.stream)
        found.append(grads)
    return found

def message(estimator, problem, num_devices=2):
    \"\"\"Of the error, and \"\" without one.\"\"\"
    try:
        estimator = split(estimator, num_devices)
        state = begin(estimator, problem)
        jax.eval_shape(estimator.estimate, problem.params, state, problem.stream)
    except ValueError as error:
        return str(error)
    return ""
"""


def test_what_is_split_and_what_is_refused():
    run_python(
        ROWS
        + """
# What is split is found out once for each set of shapes. Later calls trace nothing, outside of jit
# and in another jitted function.
num_traces = 0

def counted(params, carry, x):
    global num_traces
    num_traces += 1
    return problem.cell(params, carry, x)

estimator = split(artbp.tbptt(counted, problem.loss_fn, truncation_length=2))
arguments = problem.params, begin(estimator, problem)
estimator.estimate(*arguments, problem.stream)
of_first = num_traces
assert 1 <= of_first <= 3, of_first
estimator.estimate(*arguments, problem.stream)
jax.eval_shape(lambda *args: estimator.estimate(*args), *arguments, problem.stream)
assert num_traces == of_first, num_traces
jax.eval_shape(estimator.estimate, *arguments, make_problem("rnn", 6, batch=B).stream)
assert num_traces > of_first

# Estimators whose state is split by row, or the same on every device.
def built(name):
    return artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 2)

expected = gradients(built("rtrl"), problem, 3)
assert relative_error(gradients(split(built("rtrl")), problem, 3), expected) < 1e-12
for name in ("snap1", "tbptt_past_weights", "pes"):
    assert not message(built(name), problem), name
# Directions are drawn again where the rows of all devices begin, and not where those of one do.
resets = np.zeros((5, B), bool)
resets[2, : B // 2], resets[4] = True, True
sequences = problem._replace(stream=dataclasses.replace(problem.stream, resets=resets))
for name in ("pes", "nres", "forward_gradient"):
    expected = gradients(built(name), sequences, 3)
    assert relative_error(gradients(split(built(name)), sequences, 3), expected) < 1e-12, name
assert "uoro represents the sensitivities of all rows" in message(built("uoro"), problem)
assert "from the gradient of all rows" in message(built("adaptive_tbptt"), problem)

# Target propagation, whose gap is a sum over the rows of all devices.
from artbp.contrib import target_propagation
propagation = target_propagation(
    problem.cell, problem.loss_fn, truncation_length=1, num_segments=3, penalty=2.0,
    target_optimizer=optax.sgd(0.1), target_steps=2,
)
expected = gradients(propagation, problem, 1)
assert relative_error(gradients(split(propagation), problem, 1), expected) < 1e-12

# A mean over rows would give n times the gradient.
def mean_loss(params, y, target):
    return jnp.mean(problem.loss_fn(params, y, target))

estimator = artbp.tbptt(problem.cell, mean_loss, truncation_length=3)
assert "losses of shape () for one step, but a device has 2" in message(estimator, problem)
assert "losses of shape () for one step, but a device has 1" in message(estimator, problem, 4)
assert not message(estimator, problem, 1)
propagation = target_propagation(
    problem.cell, mean_loss, truncation_length=1, num_segments=3, penalty=2.0,
    target_optimizer=optax.sgd(0.1), target_steps=2,
)
assert "losses of shape () for one step, but a device has 2" in message(propagation, problem)

# No gradient would reach a carry that is a copy of params.
copied = problem.params["cell"]["bias"] + jnp.arange(4.0)
params = problem.params | {"first": copied}
copied = problem._replace(params=params, carry=jnp.broadcast_to(copied, (B, 4)))
estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3)
assert "carry is params['first'] in each row" in message(estimator, copied)

# One row a device, arrays with as many entries that all rows share, an x that the loss alone sees,
# and a first carry that is learned by row.
def cell(params, carry, x):
    x, of_loss, left, right = x
    carry, y = problem.cell(params, carry, x + left @ right)
    return carry, (y, of_loss)

def loss_fn(params, y, shared):
    y, of_loss = y
    return jnp.mean(shared) * (y @ params["readout"] - of_loss) ** 2

shared = np.random.default_rng(0).normal(size=(3, 5, B))
stream = problem.stream
stream = artbp.Stream((stream.xs, stream.targets, *shared[:2]), shared[2])
params = problem.params | {"first": jnp.arange(4.0 * B).reshape(B, 4) / 16}
cell, carry = artbp.learned_carry(cell, lambda params: jnp.tanh(params["first"]), params)
problem = problem._replace(params=params, carry=carry, stream=stream)
estimator = artbp.tbptt(cell, loss_fn, truncation_length=3)
expected = gradients(estimator, problem, 2)
assert relative_error(gradients(split(estimator, B), problem, 2), expected) < 1e-12
""",
        XLA_FLAGS=EIGHT,
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_estimator_of_the_registry(part):
    run_python(
        ROWS
        + f"""
problem = make_problem("lstm", 5, batch=B, mask=True, resets=True)
names = sorted(artbp.REGISTRY.keys() - {{"uoro", "adaptive_tbptt"}})
for name in names[{part}::3]:
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 2)
    expected = gradients(estimator, problem, 4)
    assert relative_error(gradients(split(estimator), problem, 4), expected) < 1e-12, name
""",
        XLA_FLAGS=EIGHT,
    )


def test_refusals():
    """A mesh without the axis, and rows that the devices cannot share."""
    problem = make_problem("rnn", 9, batch=3)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3)
    mesh = jax.sharding.AbstractMesh((2,), ("rows",))
    with pytest.raises(ValueError, match="'columns'; expected an axis of the mesh"):
        artbp.data_parallel(estimator, mesh, "columns")
    with pytest.raises(TypeError, match="GradientEstimator"):
        artbp.data_parallel(3, mesh, "rows")
    with pytest.raises(ValueError, match="3 rows, which 2 devices cannot share"):
        artbp.data_parallel(estimator, mesh, "rows").init(
            problem.params, problem.carry, rng_key=jax.random.key(0)
        )
    with pytest.raises(ValueError, match="no array with an axis of rows"):
        artbp.data_parallel(estimator, mesh, "rows").init(
            problem.params, np.float32(0), rng_key=jax.random.key(0)
        )
