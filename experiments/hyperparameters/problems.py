"""Two inner trainings, as cells: the steps of SGD are the time steps, its weights the carry.

The hyperparameters are the rates of the first and the last step, in logarithms, with a geometric
schedule between them:

    η_t = exp((1 − f)·log_rate_start + f·log_rate_end),    f = t / (T − 1),  t = 0, …, T − 1

The loss of a time step is the meta loss after that step; a stream is one inner training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp

NAMES = ("quadratic", "network")

Params = dict[str, jax.Array]


class Problem(NamedTuple):
    """An inner training.

    Attributes:
        name, label: of `NAMES`, and for readers.
        cell: carry = (state of the weights, int32 steps done), x = a minibatch or nothing.
        loss_fn: the meta loss after a step, a scalar.
        num_steps: T, the steps of one inner training.
        draw: rng_key -> (carry, stream), the data and first weights of one inner training.
        random: whether they depend on the key.
    """

    name: str
    label: str
    cell: Callable[..., Any]
    loss_fn: Callable[..., jax.Array]
    num_steps: int
    draw: Callable[[jax.Array], tuple[Any, artbp.Stream]]
    random: bool


def hyperparameters(start: Any, end: Any) -> Params:
    """The params of a schedule from rate `start` to rate `end`."""
    dtype = jnp.result_type(float)  # `jnp.log` of a Python number may be float32 in any case
    logs = [jnp.log(jnp.asarray(rate, dtype)) for rate in (start, end)]
    return {"log_rate_start": logs[0], "log_rate_end": logs[1]}


def rates_of(params: Params) -> tuple[jax.Array, jax.Array]:
    """(rate of the first step, rate of the last)."""
    return jnp.exp(params["log_rate_start"]), jnp.exp(params["log_rate_end"])


def rate_at(params: Params, step: jax.Array, num_steps: int) -> jax.Array:
    """η_t; steps count from 0."""
    done = step.astype(jnp.result_type(float)) / (num_steps - 1)
    return jnp.exp((1 - done) * params["log_rate_start"] + done * params["log_rate_end"])


def make(name: str, config: Any) -> Problem:
    """The problem of this name."""
    return {"quadratic": quadratic, "network": network}[name](config)


def quadratic(config: Any) -> Problem:
    """SGD on a quadratic with curvatures h_i and gradient noise of variance noise · h_i.

        a_i ← (1 − η h_i)² a_i + η² · noise · h_i,    meta loss = ½ Σ_i h_i a_i,    a_i = E[w_i²]

    with h_i = i^(−power) and a_i = 1 at first. It is the expected loss above its minimum, exactly:
    nothing is drawn.

    Source: Wu, Ren, Liao & Grosse, arXiv 1803.02021: their noisy quadratic, with w_i² in place of
    mean and variance.
    """
    curvature = jnp.arange(1, config.num_directions + 1) ** -float(config.curvature_power)
    num_steps = config.quadratic_steps

    def cell(params: Params, carry: Any, x: Any) -> Any:
        del x
        second_moment, step = carry
        moved = rate_at(params, step, num_steps) * curvature
        second_moment = (1 - moved) ** 2 * second_moment
        second_moment = second_moment + moved**2 * config.gradient_noise / curvature
        return (second_moment, step + 1), second_moment

    def loss_fn(params: Params, y: jax.Array, target: Any) -> jax.Array:
        del params, target
        return 0.5 * jnp.sum(curvature * y)

    def draw(rng_key: jax.Array) -> tuple[Any, artbp.Stream]:
        del rng_key
        carry = jnp.ones(config.num_directions), jnp.zeros((), jnp.int32)
        return carry, artbp.Stream(None, num_steps=num_steps)

    label = f"noisy quadratic, {config.num_directions} directions, {num_steps} steps"
    return Problem("quadratic", label, cell, loss_fn, num_steps, draw, random=False)


class Network(NamedTuple):
    """A tanh layer and a linear one, in one vector, which makes the carry a single array.

    Attributes:
        num_inputs, num_hidden, num_classes: their sizes.
    """

    num_inputs: int
    num_hidden: int
    num_classes: int

    @property
    def size(self) -> int:
        """How many weights."""
        return (self.num_inputs + 1) * self.num_hidden + (self.num_hidden + 1) * self.num_classes

    def init(self, rng_key: jax.Array, gain: float = 1.0) -> jax.Array:
        """Normal weights of deviation gain / √fan-in, biases zero."""
        keys = jax.random.split(rng_key)
        first = jax.random.normal(keys[0], (self.num_inputs, self.num_hidden))
        second = jax.random.normal(keys[1], (self.num_hidden, self.num_classes))
        return jnp.concatenate(
            [
                jnp.ravel(gain * first / np.sqrt(self.num_inputs)),
                jnp.zeros(self.num_hidden),
                jnp.ravel(gain * second / np.sqrt(self.num_hidden)),
                jnp.zeros(self.num_classes),
            ]
        )

    def log_probabilities(self, weights: jax.Array, inputs: jax.Array) -> jax.Array:
        """[..., classes] from inputs [..., num_inputs]."""
        n, m, k = self
        first, bias, second, last = jnp.split(weights, np.cumsum([n * m, m, m * k]))
        hidden = jnp.tanh(inputs @ first.reshape(n, m) + bias)
        return jax.nn.log_softmax(hidden @ second.reshape(m, k) + last)


def network(config: Any) -> Problem:
    """A small classifier that learns from a teacher of its own shape, with minibatch SGD.

        w ← w − η ∇ mean over a minibatch of −log p_w(label | input),   label ~ p_teacher(· | input)
        meta loss = mean over fixed inputs of KL(p_teacher ‖ p_w)

    Inputs are normal with deviations i^(−input_power), so that directions are learned at very
    different speeds. Labels are draws of the teacher's probabilities: that is the gradient noise.
    The teacher and the inputs of the meta loss are fixed; first weights and minibatches are drawn
    anew for each inner training. The meta loss is of the weights alone: no label noise enters it.
    """
    shape = Network(config.num_inputs, config.num_hidden, config.num_classes)
    num_steps = config.network_steps
    spread = jnp.arange(1, config.num_inputs + 1) ** -float(config.input_power)
    spread = spread * np.sqrt(config.num_inputs) / jnp.linalg.norm(spread)
    teacher_key, input_key = jax.random.split(jax.random.key(config.teacher_seed))
    teacher = shape.init(teacher_key, config.teacher_gain)
    scored = spread * jax.random.normal(input_key, (config.num_scored, config.num_inputs))
    scored_log_p = shape.log_probabilities(teacher, scored)

    def minibatch_loss(weights: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        log_p = shape.log_probabilities(weights, inputs)
        return -jnp.mean(jnp.sum(labels * log_p, axis=-1))

    def cell(params: Params, carry: Any, x: Any) -> Any:
        weights, step = carry
        gradient = jax.grad(minibatch_loss)(weights, *x)
        weights = weights - rate_at(params, step, num_steps) * gradient
        return (weights, step + 1), weights

    def loss_fn(params: Params, y: jax.Array, target: Any) -> jax.Array:
        del params, target
        log_p = shape.log_probabilities(y, scored)
        return jnp.mean(jnp.sum(jnp.exp(scored_log_p) * (scored_log_p - log_p), axis=-1))

    def draw(rng_key: jax.Array) -> tuple[Any, artbp.Stream]:
        weight_key, input_key, label_key = jax.random.split(rng_key, 3)
        size = (num_steps, config.minibatch_size)
        inputs = spread * jax.random.normal(input_key, (*size, config.num_inputs))
        labels = jax.random.categorical(label_key, shape.log_probabilities(teacher, inputs))
        one_hot = jax.nn.one_hot(labels, config.num_classes, dtype=inputs.dtype)
        carry = shape.init(weight_key), jnp.zeros((), jnp.int32)
        return carry, artbp.Stream((inputs, one_hot))

    label = f"network of {shape.size} weights, {num_steps} minibatches of {config.minibatch_size}"
    return Problem("network", label, cell, loss_fn, num_steps, draw, random=True)
