import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common.errors import ConfigError
from experiments.common.optimizers import CLIPPING_HELP, OPTIMIZERS, make_optimizer


def first_update(optimizer, gradient):
    params = jnp.zeros_like(gradient)
    return optimizer.update(gradient, optimizer.init(params), params)[0]


GRADIENT = jnp.array([3.0, -4.0])


@pytest.mark.parametrize(
    ("clipping", "expected"),
    [
        ({}, [3.0, -4.0]),
        ({"clip_value": 3.5}, [3.0, -3.5]),
        ({"clip_norm": 1.0}, [0.6, -0.8]),
        ({"clip_norm": 6.0}, [3.0, -4.0]),
    ],
)
def test_clipping_of_the_gradient(clipping, expected):
    optimizer = make_optimizer("sgd", learning_rate=1.0, **clipping)
    np.testing.assert_allclose(-first_update(optimizer, GRADIENT), expected, rtol=1e-6)


def test_clipping_comes_before_the_optimizer():
    """Clipped after Adam, whose first step is ±learning_rate, the two would be equal."""
    momentum = {"options": {"momentum": 0.9}}
    optimizer = make_optimizer("sgd", learning_rate=10.0, clip_norm=1.0, **momentum)
    np.testing.assert_allclose(-first_update(optimizer, GRADIENT), [6.0, -8.0], rtol=1e-6)


def test_an_optimizer_with_its_options():
    optimizer = make_optimizer("adamw", learning_rate=0.1, options={"weight_decay": 0.0, "b1": 0.5})
    expected = optax.adamw(0.1, b1=0.5, weight_decay=0.0)
    np.testing.assert_array_equal(
        first_update(optimizer, GRADIENT), first_update(expected, GRADIENT)
    )


def test_help_names_both_biases():
    assert "biases a random gradient" in CLIPPING_HELP and "long segments" in CLIPPING_HELP


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "adamm"}, "'adamm': expected one of sgd, adam, "),
        ({"name": "clip"}, "'clip'"),
        ({"name": "lbfgs"}, "'lbfgs'"),
        ({"name": "sgd", "options": {"beta": 1.0}}, "beta"),
        ({"name": "sgd", "options": {"momentum": "high"}}, "high"),
        ({"name": "sgd", "learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"name": "sgd", "learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"name": "sgd", "learning_rate": float("inf")}, "learning_rate is inf"),
        ({"name": "sgd", "clip_norm": "abc"}, "clip_norm is 'abc'"),
        ({"name": "sgd", "clip_norm": float("nan")}, "clip_norm is nan"),
        ({"name": "sgd", "clip_norm": True}, "clip_norm is True"),
        ({"name": "sgd", "clip_value": 1.0, "clip_norm": 1.0}, "choose one"),
        ({"name": "sgd", "clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"name": "sgd", "clip_value": 0.0}, "clip_value is 0.0"),
    ],
)
def test_bad_settings(arguments, words):
    with pytest.raises(ConfigError, match=words):
        make_optimizer(**{"learning_rate": 0.1} | arguments)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_makes_an_optimizer(name):
    assert np.all(np.isfinite(first_update(make_optimizer(name, learning_rate=0.1), GRADIENT)))
