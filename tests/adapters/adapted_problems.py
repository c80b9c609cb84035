"""Modules of each library, adapted, and how the library itself runs them.

`cells` gives single cells, run by the library's own unroll; `model` gives a model with embedding,
two cells, dropout and readout, run step by step by the library. Tests that ask for a library that
is not installed are skipped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import artbp

LIBRARIES = ("linen", "nnx", "haiku", "equinox")
ROWS, STEPS, INPUTS, HIDDEN, SYMBOLS = 2, 5, 3, 2, 4


class AdaptedProblem(NamedTuple):
    """An adapted module, inputs for it, and the library's own `native(params, xs) -> ys`."""

    model: artbp.adapters.AdaptedModule
    xs: Any
    native: Callable[[Any, Any], Any]

    def adapted(self, params, xs):
        return artbp.unroll(self.model.cell, params, self.model.carry, xs)[1]


def require(library):
    """Skips the test unless the library is installed."""
    pytest.importorskip("flax" if library in ("linen", "nnx") else library)


def floats():
    return jax.random.normal(jax.random.key(1), (STEPS, ROWS, INPUTS), jnp.result_type(float))


def symbols_and_keys():
    symbols = jax.random.randint(jax.random.key(2), (STEPS, ROWS), 0, SYMBOLS)
    return symbols, jax.random.split(jax.random.key(3), STEPS)


def looped(step, carry):
    """`native` for a model, from `step(params, carry, x, key) -> (carry, y)`."""

    def native(params, xs):
        state, ys = carry, []
        for t in range(STEPS):
            state, y = step(params, state, xs[0][t], xs[1][t])
            ys.append(y)
        return jnp.stack(ys)

    return native


def linen_cells():
    from flax import linen as nn

    for make in (nn.OptimizedLSTMCell, nn.LSTMCell, nn.GRUCell, nn.SimpleCell):
        module, xs = make(HIDDEN, param_dtype=jnp.result_type(float)), floats()
        layer = nn.RNN(module, time_major=True)
        native = lambda params, xs, layer=layer: layer.apply({"params": {"cell": params}}, xs)  # noqa: E731
        model = artbp.adapters.linen.adapt(module, xs[0], rng_key=jax.random.key(0))
        yield AdaptedProblem(model, xs, native)


def linen_module(**options):
    from flax import linen as nn

    class Model(nn.Module):
        train: bool = True

        @nn.compact
        def __call__(self, carry, x):
            dtype = {"param_dtype": jnp.result_type(float)}
            x = nn.Embed(SYMBOLS, INPUTS, **dtype)(x)
            lstm, x = nn.OptimizedLSTMCell(HIDDEN, **dtype)(carry[0], x)
            x = nn.Dropout(0.5, deterministic=not self.train)(x)
            gru, x = nn.GRUCell(HIDDEN, **dtype)(carry[1], x)
            return (lstm, gru), nn.Dense(SYMBOLS, **dtype)(x)

    return Model(**options)


def two_states():
    zeros = jnp.zeros((ROWS, HIDDEN))
    return (zeros, zeros), zeros


def linen_model():
    module, xs, carry = linen_module(), symbols_and_keys(), two_states()
    model = artbp.adapters.linen.adapt(module, xs[0][0], rng_key=jax.random.key(0), carry=carry)

    def step(params, carry, x, key):
        return module.apply({"params": params}, carry, x, rngs={"dropout": key})

    return AdaptedProblem(model, xs, looped(step, carry))


def nnx_cells():
    from flax import nnx

    for make in (nnx.OptimizedLSTMCell, nnx.LSTMCell, nnx.GRUCell):
        module = make(INPUTS, HIDDEN, param_dtype=jnp.result_type(float), rngs=nnx.Rngs(0))
        carry = module.initialize_carry((ROWS, INPUTS), nnx.Rngs(0))

        def native(params, xs, module=module):
            graphdef, _, rest = nnx.split(module, nnx.Param, ...)
            return nnx.RNN(nnx.merge(graphdef, params, rest), time_major=True)(xs)

        yield AdaptedProblem(artbp.adapters.nnx.adapt(module, carry), floats(), native)


def nnx_module():
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            options = {"param_dtype": jnp.result_type(float), "rngs": rngs}
            self.embed = nnx.Embed(SYMBOLS, INPUTS, **options)
            self.lstm = nnx.LSTMCell(INPUTS, HIDDEN, **options)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.gru = nnx.GRUCell(HIDDEN, HIDDEN, **options)
            self.readout = nnx.Linear(HIDDEN, SYMBOLS, **options)

        def __call__(self, carry, x):
            lstm, x = self.lstm(carry[0], self.embed(x))
            gru, x = self.gru(carry[1], self.dropout(x))
            return (lstm, gru), self.readout(x)

    return Model(nnx.Rngs(0))


def nnx_model():
    from flax import nnx

    module, carry = nnx_module(), two_states()
    graphdef, _, rest = nnx.split(module, nnx.Param, ...)

    def step(params, carry, x, key):
        own = nnx.merge(graphdef, params, rest)
        own.dropout.rngs = nnx.RngStream(jax.random.fold_in(key, 0), tag="dropout")
        return own(carry, x)

    model = artbp.adapters.nnx.adapt(module, carry)
    return AdaptedProblem(model, symbols_and_keys(), looped(step, carry))


def haiku_cells():
    import haiku as hk

    for make in (hk.LSTM, hk.GRU, hk.VanillaRNN):
        make_core = lambda make=make: make(HIDDEN)  # noqa: E731

        def own_unroll(xs, make_core=make_core):
            core = make_core()
            return hk.dynamic_unroll(core, xs, core.initial_state(ROWS))[0]

        native = hk.without_apply_rng(hk.transform(own_unroll)).apply
        model = artbp.adapters.haiku.adapt(make_core, floats()[0], rng_key=jax.random.key(0))
        yield AdaptedProblem(model, floats(), native)


def haiku_core():
    import haiku as hk

    def dropout(x):
        return hk.dropout(hk.next_rng_key(), 0.5, x)

    layers = [hk.Embed(SYMBOLS, INPUTS), hk.LSTM(HIDDEN), dropout, hk.GRU(HIDDEN)]
    return hk.DeepRNN([*layers, hk.Linear(SYMBOLS)])


def haiku_model():
    import haiku as hk

    xs = symbols_and_keys()
    model = artbp.adapters.haiku.adapt(haiku_core, xs[0][0], rng_key=jax.random.key(0))
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), model.params)
    model = model._replace(params=wide)  # hk.Embed makes float32, and so all that reads it
    transformed = hk.transform(lambda x, carry: haiku_core()(x, carry))

    def step(params, carry, x, key):
        y, carry = transformed.apply(params, key, x, carry)
        return carry, y

    return AdaptedProblem(model, xs, looped(step, model.carry))


def equinox_cells():
    import equinox as eqx

    zeros = jnp.zeros((ROWS, HIDDEN))
    for make, carry in ((eqx.nn.LSTMCell, (zeros, zeros)), (eqx.nn.GRUCell, zeros)):
        module = make(INPUTS, HIDDEN, key=jax.random.key(0))

        def native(module, xs, carry=carry):
            def step(carry, x):
                carry = jax.vmap(module)(x, carry)
                return carry, jax.tree.leaves(carry)[0]

            return jax.lax.scan(step, carry, xs)[1]

        model = artbp.adapters.equinox.adapt(module, carry)
        yield AdaptedProblem(model, floats(), native)


def equinox_model():
    import equinox as eqx

    class Model(eqx.Module):
        embed: eqx.nn.Embedding
        lstm: eqx.nn.LSTMCell
        dropout: eqx.nn.Dropout
        gru: eqx.nn.GRUCell
        readout: eqx.nn.MLP  # its activation is a function among the leaves

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.embed = eqx.nn.Embedding(SYMBOLS, INPUTS, key=keys[0])
            self.lstm = eqx.nn.LSTMCell(INPUTS, HIDDEN, key=keys[1])
            self.dropout = eqx.nn.Dropout(0.5)
            self.gru = eqx.nn.GRUCell(HIDDEN, HIDDEN, key=keys[2])
            self.readout = eqx.nn.MLP(HIDDEN, SYMBOLS, 3, 1, key=keys[3])

        def __call__(self, carry, x, key):
            lstm = self.lstm(self.embed(x), carry[0])
            gru = self.gru(self.dropout(lstm[0], key=key), carry[1])
            return (lstm, gru), self.readout(gru)

    module, carry = Model(jax.random.key(0)), two_states()
    model = artbp.adapters.equinox.adapt(module, carry)

    def step(params, carry, x, key):
        own = eqx.combine(params, eqx.partition(module, eqx.is_inexact_array)[1])
        return jax.vmap(own)(carry, x, jax.random.split(key, ROWS))

    return AdaptedProblem(model, symbols_and_keys(), looped(step, carry))


def cells(library):
    """Single cells of the library."""
    require(library)
    return list(globals()[f"{library}_cells"]())


def model(library):
    """The model of the library."""
    require(library)
    return globals()[f"{library}_model"]()
