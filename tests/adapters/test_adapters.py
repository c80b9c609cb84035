"""Adapted modules: the same gradients as by their library, and under every estimator."""

import functools
import sys

import adapted_problems
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_problems import LIBRARIES, ROWS, STEPS
from problems import relative_error

import artbp

libraries = pytest.mark.parametrize("library", LIBRARIES)


@pytest.fixture(autouse=True)
def promotion_of_the_libraries(strict_promotion):
    """JAX's defaults: the libraries rely on them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def loss_and_gradient(run, params, xs):
    """Of losses that weigh each output differently."""

    def loss(params):
        ys = run(params, xs)
        return jnp.sum(jnp.cos(jnp.arange(ys.size)).reshape(ys.shape) * ys + ys**2)

    return jax.jit(jax.value_and_grad(loss))(params)


@libraries
def test_cells_have_the_gradients_of_their_librarys_own_unroll(library, float64):
    for problem in adapted_problems.cells(library):
        params = problem.model.params
        expected, expected_grads = loss_and_gradient(problem.native, params, problem.xs)
        loss, grads = loss_and_gradient(problem.adapted, params, problem.xs)
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
        assert relative_error(grads, expected_grads) < 1e-12
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, params)


@libraries
def test_a_cell_keeps_bfloat16(library):
    problem = adapted_problems.cells(library)[0]
    of_step = (problem.model.params, problem.model.carry, problem.xs[0])
    params, carry, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), of_step)
    for leaf in jax.tree.leaves(problem.model.cell(params, carry, x)):
        assert leaf.dtype == jnp.bfloat16


def loss_fn(params, y, target):
    return -jnp.take_along_axis(jax.nn.log_softmax(y), target[..., None], -1)[..., 0]


@functools.cache
def model_and_gradient(library):
    """(the model, a stream, its summed loss and their gradient by the library alone)."""
    model, xs, native = adapted_problems.model(library)
    targets = jnp.arange(STEPS * ROWS).reshape(STEPS, ROWS) % adapted_problems.SYMBOLS

    def loss(params):
        return jnp.sum(jax.vmap(loss_fn, (None, 0, 0))(params, native(params, xs), targets))

    return model, artbp.Stream(xs, targets), *jax.jit(jax.value_and_grad(loss))(model.params)


# One for each driver and kernel; the others take the same cell through the same code. An adapted
# module is a function, whatever its library: backward and forward in time for each of them.
CORE = ("bptt", "artbp_polynomial_4", "tbptt_stored", "unbiased_tbptt", "rtrl", "pes")
OF_EACH_LIBRARY = ("artbp_polynomial_4", "bptt", "rtrl")
CASES = [
    pytest.param(library, name, marks=[] if name in names else pytest.mark.slow)
    for library in LIBRARIES
    for names in [CORE if library == "linen" else OF_EACH_LIBRARY]
    for name in artbp.REGISTRY
]


@pytest.mark.parametrize(("library", "name"), CASES)
def test_a_model_has_the_gradient_of_its_own_library_under_every_estimator(library, name, float64):
    """Embedding, two cells, dropout and readout, over one pass."""
    adapted_problems.require(library)
    model, stream, expected, gradient = model_and_gradient(library)
    row = artbp.REGISTRY[name]
    estimator = row.build(model.cell, loss_fn, 3)
    estimate = jax.jit(estimator.estimate)
    state = estimator.init(model.params, model.carry, rng_key=jax.random.key(0))
    total, losses, info = jax.tree.map(jnp.zeros_like, model.params), 0.0, None
    while info is None or not info.end_of_stream:
        grads, state, info = estimate(model.params, state, stream)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, model.params)
        total = jax.tree.map(jnp.add, total, grads)
        losses += float(info.loss_sum)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    error = relative_error(total, gradient)
    assert error < 1e-12 if row.exact else np.isfinite(error)


@libraries
def test_a_module_comes_back(library):
    """With other params than it had."""
    model, xs, _ = adapted_problems.model(library)
    params = jax.tree.map(lambda leaf: leaf + 1, model.params)
    back = model.to_module(params)
    if library == "nnx":
        from flax import nnx

        chex.assert_trees_all_equal(nnx.state(back, nnx.Param), params)
        first = jax.tree.leaves(params)[0]
        back.embed.embedding[...] += 1  # the caller's to change
        chex.assert_trees_all_equal(jax.tree.leaves(params)[0], first)
        return
    expected = model.cell(params, model.carry, (xs[0][0], jax.random.key(0)))[1]
    if library == "linen":
        y = back.apply({"params": params}, model.carry, xs[0][0], rngs=jax.random.key(0))[1]
        chex.assert_trees_all_equal(back.variables["params"], params)
    elif library == "haiku":
        with pytest.raises(ValueError, match="PRNGKey"):
            back(xs[0][0], model.carry)  # its dropout
        return
    else:
        keys = jax.random.split(jax.random.key(0), ROWS)
        y = jax.vmap(back)(model.carry, xs[0][0], keys)[1]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@libraries
def test_keys_choose_the_random_numbers(library):
    """Other keys, other masks; and without keys an error, not one mask for all steps."""
    model, (symbols, keys), _ = adapted_problems.model(library)
    run = jax.jit(lambda keys: artbp.unroll(model.cell, model.params, model.carry, (symbols, keys)))
    first, same = run(keys)[1], run(keys)[1]
    other = run(jax.random.split(jax.random.key(8), STEPS))[1]
    np.testing.assert_array_equal(first, same)
    assert (jnp.abs(first - other).max(axis=(1, 2)) > 0).sum() >= STEPS - 1
    with pytest.raises((ValueError, TypeError, RuntimeError), match="key"):
        artbp.unroll(model.cell, model.params, model.carry, symbols)


def test_a_stack_is_a_chain_of_cells():
    """Also of two libraries; the key of a step is folded with the place in the stack."""
    from flax import linen, nnx

    lower = adapted_problems.cells("linen")[0]
    module = nnx.Sequential(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
    upper = artbp.adapters.nnx.adapt(module.layers[0], jnp.zeros((ROWS, 3)))
    both = artbp.adapters.stack([lower.model, upper])
    (first, second), ys = artbp.unroll(both.cell, both.params, both.carry, lower.xs)
    carry, middle = artbp.unroll(lower.model.cell, lower.model.params, lower.model.carry, lower.xs)
    expected = artbp.unroll(upper.cell, upper.params, upper.carry, middle)
    chex.assert_trees_all_close((first, second, ys), (carry, *expected), rtol=1e-6)
    modules = both.to_module(both.params)
    assert isinstance(modules[0], linen.OptimizedLSTMCell)
    assert isinstance(modules[1], nnx.GRUCell)

    drawing = artbp.adapters.AdaptedModule(
        lambda params, carry, x: (carry, x[0] + jax.random.normal(x[1])), (), jnp.zeros(()), None
    )
    key = jax.random.key(5)
    twice = artbp.adapters.stack([drawing, drawing])
    y = twice.cell(twice.params, twice.carry, (jnp.zeros(()), key))[1]
    noise = [jax.random.normal(jax.random.fold_in(key, i)) for i in range(2)]
    np.testing.assert_allclose(y, sum(noise), rtol=1e-6)


def normalised(library):
    """(the adapted module, `step(params, statistics, carry, x)` by the library)."""
    carry, x = jnp.zeros((ROWS, 3)), jnp.zeros((ROWS, 2))
    dtype = {"param_dtype": jnp.result_type(float)}
    if library == "linen":
        from flax import linen as nn

        class Model(nn.Module):
            @nn.compact
            def __call__(self, carry, x):
                return nn.GRUCell(3, **dtype)(carry, nn.BatchNorm(False, **dtype)(x))

        options = {"rng_key": jax.random.key(0), "carry": carry, "mutable": "batch_stats"}
        model = artbp.adapters.linen.adapt(Model(), x, **options)

        def step(params, statistics, carry, x):
            variables = {"params": params, **statistics}
            out, statistics = Model().apply(variables, carry, x, mutable=["batch_stats"])
            return *out, statistics

    else:
        from flax import nnx

        class Model(nnx.Module):
            def __init__(self, rngs):
                self.norm = nnx.BatchNorm(2, rngs=rngs, **dtype)
                self.cell = nnx.GRUCell(2, 3, rngs=rngs, **dtype)

            def __call__(self, carry, x):
                return self.cell(carry, self.norm(x))

        module = Model(nnx.Rngs(0))
        model = artbp.adapters.nnx.adapt(module, carry, mutable=nnx.BatchStat)
        graphdef, *_ = nnx.split(module, nnx.Param, nnx.BatchStat)

        def step(params, statistics, carry, x):
            own = nnx.merge(graphdef, params, statistics, copy=True)
            carry, y = own(carry, x)
            return carry, y, nnx.state(own, nnx.BatchStat)

    # flax makes them float32, whatever the params are.
    wide = jax.tree.map(lambda leaf: leaf.astype(float), model.carry)
    return model._replace(carry=wide), step


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_batch_statistics_go_on_in_the_carry(library, float64):
    """Over two passes, with a reset of one row, as by the library."""
    model, step = normalised(library)
    xs = 1 + jax.random.normal(jax.random.key(1), (STEPS, ROWS, 2))
    resets = jnp.zeros((STEPS, ROWS), bool).at[2, 1].set(True)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def by_the_library(params, statistics):
        carry, loss = model.carry[0], 0.0
        for x, reset in zip(xs, resets, strict=True):
            carry = jnp.where(reset[:, None], 0.0, carry)
            carry, y, statistics = step(params, statistics, carry, x)
            loss += jnp.sum(y**2)
        return loss, statistics

    estimator = artbp.bptt(model.cell, lambda params, y, target: jnp.sum(y**2, -1), block_size=8)
    options = {"rng_key": jax.random.key(0), "initial_carry": (model.carry[0], None)}
    state, statistics = estimator.init(model.params, model.carry, **options), model.carry[1]
    for _ in range(2):
        grads, state, _ = estimator.estimate(model.params, state, artbp.Stream(xs, resets=resets))
        expected, statistics = by_the_library(model.params, statistics)
        assert relative_error(grads, expected) < 1e-12
        assert relative_error(state.carry[1], statistics) < 1e-12
        np.testing.assert_array_equal(state.carry[0], model.carry[0])


def test_a_collection_that_the_module_has_not():
    nn = pytest.importorskip("flax.linen")
    options = {"rng_key": jax.random.key(0), "mutable": "statistics"}
    with pytest.raises(ValueError, match=r"module\.init makes besides params: \[\]"):
        artbp.adapters.linen.adapt(nn.GRUCell(3), jnp.zeros((ROWS, 2)), **options)


@libraries
def test_batch_statistics_are_refused(library):
    with pytest.raises(ValueError, match=r"`mutable` of artbp\.adapters"):
        adapt_batch_norm(library)


def adapt_batch_norm(library):
    """Adapts, and runs for one step, a module with batch statistics that are updated."""
    adapted_problems.require(library)
    x = carry = jnp.zeros((ROWS, 3))
    if library == "linen":
        from flax import linen as nn

        class Normalised(nn.Module):
            @nn.compact
            def __call__(self, carry, x):
                return carry, nn.BatchNorm(use_running_average=False)(x)

        options = {"rng_key": jax.random.key(0), "carry": carry}
        model = artbp.adapters.linen.adapt(Normalised(), x, **options)
    elif library == "nnx":
        from flax import nnx

        class Normalised(nnx.Module):
            def __init__(self):
                self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

            def __call__(self, carry, x):
                return carry, self.norm(x)

        module = Normalised()
        model = artbp.adapters.nnx.adapt(module, carry)
        module.eval()  # `model` stays as the module was
        assert artbp.adapters.nnx.adapt(module, carry).cell(model.params, carry, x)
    elif library == "haiku":
        import haiku as hk

        def make_core():
            return lambda x, carry: (hk.BatchNorm(True, True, 0.9)(x, is_training=True), carry)

        options = {"rng_key": jax.random.key(0), "carry": carry}
        model = artbp.adapters.haiku.adapt(make_core, x, **options)
    else:
        import equinox as eqx

        norm = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, axis_name="rows", mode="batch")[0]
        model = artbp.adapters.equinox.adapt(norm, carry)
    artbp.unroll(model.cell, model.params, carry, x[None])


def test_a_linen_module_without_a_carry_asks_for_one():
    x = jnp.zeros((ROWS,), jnp.int32)
    with pytest.raises(ValueError, match="Pass adapt a first carry"):
        artbp.adapters.linen.adapt(adapted_problems.linen_module(), x, rng_key=jax.random.key(0))


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_module_given_as_cell_is_pointed_to_its_adapter(library):
    from flax import linen, nnx

    if library == "linen":
        module = linen.OptimizedLSTMCell(3)
    else:
        module = nnx.RNN(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(Exception) as raised:
        artbp.unroll(module, {}, jnp.zeros((ROWS, 3)), jnp.zeros((4, ROWS, 2)))
    assert f"artbp.adapters.{library}.adapt makes one" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("library", ["equinox", "haiku"])
def test_a_missing_library_is_named_as_the_package_index_has_it(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # what an import of a missing module meets
    arguments = {"haiku": (None, jnp.zeros(2)), "equinox": (None, None)}[library]
    options = {"haiku": {"rng_key": jax.random.key(0)}, "equinox": {}}[library]
    with pytest.raises(ModuleNotFoundError) as raised:
        getattr(artbp.adapters, library).adapt(*arguments, **options)
    package = {"haiku": "dm-haiku", "equinox": "equinox"}[library]
    assert f"pip install {package}" in raised.value.__notes__[0]


def test_there_is_no_adapter_for_another_library():
    with pytest.raises(AttributeError, match="no attribute 'keras'"):
        _ = artbp.adapters.keras


def test_layers_that_nnx_stacks_have_masks_of_their_own():
    nnx = pytest.importorskip("flax.nnx")

    class Stacked(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=4)
            @nnx.vmap
            def make(rngs):
                return nnx.Dropout(0.5, rngs=rngs)

            self.cell, self.dropouts = nnx.GRUCell(3, 3, rngs=rngs), make(rngs)

        def __call__(self, carry, x):
            y = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(self.dropouts, x)
            return self.cell(carry, x)[0], y

    x = jnp.ones((ROWS, 3))
    model = artbp.adapters.nnx.adapt(Stacked(nnx.Rngs(0)), jnp.zeros((ROWS, 3)))
    _, y = model.cell(model.params, model.carry, (x, jax.random.key(3)))
    assert len(np.unique(y.reshape(4, -1), axis=0)) == 4


@pytest.mark.parametrize("value", [0.5, None, {"a": jnp.ones(2)}, (jnp.ones(2), 1)])
def test_an_nnx_variable_may_hold_anything(value):
    nnx = pytest.importorskip("flax.nnx")

    class Holder(nnx.Module):
        def __init__(self):
            self.cell = nnx.GRUCell(3, 3, rngs=nnx.Rngs(0))
            self.variable, self.changes = nnx.Variable(value), False

        def __call__(self, carry, x):
            if self.changes:
                self.variable.set_value(jax.tree.map(lambda leaf: leaf + 1, value))
            return self.cell(carry, x)

    module, x = Holder(), jnp.zeros((ROWS, 3))
    model = artbp.adapters.nnx.adapt(module, x)
    chex.assert_trees_all_equal(model.cell(model.params, x, x), module(x, x))
    module.changes = True
    model = artbp.adapters.nnx.adapt(module, x)
    if value is not None:  # no value of it has changed
        with pytest.raises(ValueError, match="changes Variable variable"):
            model.cell(model.params, x, x)


def test_a_module_that_adds_a_variable_is_refused():
    nnx = pytest.importorskip("flax.nnx")

    class Sowing(nnx.Module):
        def __init__(self):
            self.cell = nnx.GRUCell(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, carry, x):
            self.seen = nnx.Intermediate(x)
            return self.cell(carry, x)

    x = jnp.zeros((ROWS, 3))
    model = artbp.adapters.nnx.adapt(Sowing(), x)
    with pytest.raises(ValueError, match="changes Intermediate seen"):
        model.cell(model.params, x, x)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_raw_keys_become_typed_ones_for_the_module(library):
    model, (symbols, _), _ = adapted_problems.model(library)
    estimator = artbp.tbptt(
        model.cell, lambda params, y, target: jnp.sum(y, -1), truncation_length=3
    )
    found = []
    for key in (jax.random.PRNGKey(1), jax.random.key(1)):
        state = estimator.init(model.params, model.carry, rng_key=key)
        stream = artbp.with_keys(artbp.Stream(symbols), key, state)
        found.append(estimator.estimate(model.params, state, stream)[0])
    chex.assert_trees_all_equal(*found)


@pytest.mark.parametrize("mutable", [True, None])
def test_filters_of_flax_are_no_names_of_collections(mutable):
    nn = pytest.importorskip("flax.linen")
    options = {"rng_key": jax.random.key(0), "mutable": mutable}
    with pytest.raises(TypeError, match="expected names of collections"):
        artbp.adapters.linen.adapt(nn.GRUCell(3), jnp.zeros((ROWS, 2)), **options)


@pytest.mark.parametrize("kind", ["no state", "learned state"])
def test_a_haiku_core_without_a_carry_asks_for_one(kind):
    hk = pytest.importorskip("haiku")

    class LearnedState(hk.GRU):
        def initial_state(self, batch_size):
            first = hk.get_parameter("first", [3], init=jnp.zeros)
            return jnp.broadcast_to(first, (batch_size, 3))

    make = {"no state": hk.Linear, "learned state": LearnedState}[kind]
    with pytest.raises(ValueError, match="Pass adapt a first carry"):
        artbp.adapters.haiku.adapt(lambda: make(3), jnp.zeros((ROWS, 3)), rng_key=jax.random.key(0))
