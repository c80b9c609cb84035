"""Two inner trainings as cells: the time steps are steps of SGD, and the carry is its weights.

The hyperparameters are the rates of the first and the last step, in logarithms, with a geometric
schedule between them:

    η_t = exp((1 − f)·log_rate_start + f·log_rate_end),    f = t / (T − 1),  t = 0, …, T − 1

The loss of a time step is the meta loss after that step; a stream is one inner training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.report import Row

Params = dict[str, jax.Array]


class InnerTraining(NamedTuple):
    """An inner training, which the hyperparameters are learned through."""

    name: str  # in `PROBLEMS`
    label: str  # for tables
    cell: Callable[..., Any]  # carry = (weights, int32 steps done), x = a minibatch or None
    loss_fn: Callable[..., jax.Array]  # the meta loss after a step, a scalar
    num_steps: int  # T
    draw: Callable[[jax.Array], tuple[Any, artbp.Stream]]  # rng_key -> (carry, stream)
    random: bool  # whether carry and stream depend on the key


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


def quadratic(config: Any) -> InnerTraining:
    """SGD on a quadratic with curvatures h_i and gradient noise of variance noise · h_i.

        a_i ← (1 − η h_i)² a_i + η² · noise · h_i,    meta loss = ½ Σ_i h_i a_i,    a_i = E[w_i²]

    with h_i = i^(−power) and a_i = 1 at first. This is the exact expectation of the loss above its
    minimum, so nothing is drawn. Source: the noisy quadratic of arXiv 1803.02021, with w_i² in
    place of mean and variance.
    """
    curvature = jnp.arange(1, config.num_directions + 1) ** -float(config.curvature_power)
    num_steps = config.quadratic_steps

    def cell(params: Params, carry: Any, x: None) -> Any:
        second_moment, step = carry
        moved = rate_at(params, step, num_steps) * curvature
        second_moment = (1 - moved) ** 2 * second_moment
        second_moment = second_moment + moved**2 * config.gradient_noise / curvature
        return (second_moment, step + 1), second_moment

    def loss_fn(params: Params, y: jax.Array, target: None) -> jax.Array:
        return 0.5 * jnp.sum(curvature * y)

    def draw(rng_key: jax.Array) -> tuple[Any, artbp.Stream]:
        carry = jnp.ones(config.num_directions), jnp.zeros((), jnp.int32)
        return carry, artbp.Stream(None, num_steps=num_steps)

    label = f"noisy quadratic, {config.num_directions} directions, {num_steps} steps"
    return InnerTraining("quadratic", label, cell, loss_fn, num_steps, draw, random=False)


class Network(NamedTuple):
    """A tanh layer and a linear one. All weights are one vector, so the carry is a single array."""

    num_inputs: int
    num_hidden: int
    num_classes: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return (self.num_inputs + 1) * self.num_hidden + (self.num_hidden + 1) * self.num_classes

    def init(self, rng_key: jax.Array, gain: float = 1.0) -> jax.Array:
        """Normal weights of deviation gain / √fan-in, biases zero."""
        layers = []
        for key, n, m in zip(jax.random.split(rng_key), self[:2], self[1:], strict=True):
            weights = gain * jax.random.normal(key, (n, m)) / np.sqrt(n)
            layers += [jnp.ravel(weights), jnp.zeros(m)]
        return jnp.concatenate(layers)

    def log_probabilities(self, weights: jax.Array, inputs: jax.Array) -> jax.Array:
        """[..., classes] from inputs [..., num_inputs]."""
        n, m, k = self
        first, bias, second, last = jnp.split(weights, np.cumsum([n * m, m, m * k]))
        hidden = jnp.tanh(inputs @ first.reshape(n, m) + bias)
        return jax.nn.log_softmax(hidden @ second.reshape(m, k) + last)


def network(config: Any) -> InnerTraining:
    """A small classifier that learns from a teacher of its own shape, with minibatch SGD.

        w ← w − η ∇ mean over a minibatch of −log p_w(label | input),   label ~ p_teacher(· | input)
        meta loss = mean over fixed inputs of KL(p_teacher ‖ p_w)

    Inputs are normal with deviations i^(−input_power), so that directions are learned at very
    different speeds. Labels are draws of the teacher's probabilities: that is the gradient noise.
    First weights and minibatches are drawn anew for each inner training, nothing else is.
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
        return -jnp.mean(jnp.sum(labels * shape.log_probabilities(weights, inputs), axis=-1))

    def cell(params: Params, carry: Any, x: Any) -> Any:
        weights, step = carry
        gradient = jax.grad(minibatch_loss)(weights, *x)
        weights = weights - rate_at(params, step, num_steps) * gradient
        return (weights, step + 1), weights

    def loss_fn(params: Params, y: jax.Array, target: None) -> jax.Array:
        log_p = shape.log_probabilities(y, scored)
        return jnp.mean(jnp.sum(jnp.exp(scored_log_p) * (scored_log_p - log_p), axis=-1))

    def draw(rng_key: jax.Array) -> tuple[Any, artbp.Stream]:
        weight_key, input_key, label_key = jax.random.split(rng_key, 3)
        shape_of_inputs = num_steps, config.minibatch_size, config.num_inputs
        inputs = spread * jax.random.normal(input_key, shape_of_inputs)
        labels = jax.random.categorical(label_key, shape.log_probabilities(teacher, inputs))
        one_hot = jax.nn.one_hot(labels, config.num_classes, dtype=inputs.dtype)
        carry = shape.init(weight_key), jnp.zeros((), jnp.int32)
        return carry, artbp.Stream((inputs, one_hot))

    label = f"network of {shape.size} weights, {num_steps} minibatches of {config.minibatch_size}"
    return InnerTraining("network", label, cell, loss_fn, num_steps, draw, random=True)


PROBLEMS: dict[str, Callable[[Any], InnerTraining]] = {"quadratic": quadratic, "network": network}


def scoring_keys(config: Any, problem: InnerTraining) -> jax.Array:
    """Keys of the inner trainings that score every schedule."""
    number = config.num_scoring if problem.random else 1
    return jax.random.split(jax.random.key(config.scoring_seed), number)


def scores(config: Any, problem: InnerTraining, rates: np.ndarray) -> np.ndarray:
    """[2, ...] from rates [..., 2]: the mean loss per step and the last loss of schedules.

    Means over the scoring inner trainings; infinite where one of them diverged.
    """

    def step(params: Params, carry: Any, x: Any) -> tuple[Any, jax.Array]:
        carry, y = problem.cell(params, carry, x)
        return carry, problem.loss_fn(params, y, None)

    def of_key(params: Params, key: jax.Array) -> jax.Array:
        carry, stream = problem.draw(key)
        xs = jnp.zeros(problem.num_steps) if stream.xs is None else stream.xs
        return artbp.unroll(step, params, carry, xs)[1]

    def of_pair(pair: jax.Array) -> jax.Array:
        params = hyperparameters(pair[0], pair[1])
        losses = jax.vmap(of_key, (None, 0))(params, scoring_keys(config, problem))
        return jnp.stack([jnp.mean(losses), jnp.mean(losses[:, -1])])

    pairs = jnp.asarray(rates).reshape(-1, 2)
    found = np.asarray(jax.jit(lambda x: jax.lax.map(of_pair, x, batch_size=16))(pairs))
    return np.where(np.isnan(found), np.inf, found).T.reshape(2, *rates.shape[:-1])


def try_rates(config: Any, problem: InnerTraining) -> Row:
    """Scores every pair of rates: a row of the results, with losses[start, end] and the best."""
    ranges = config.start_range, config.end_range
    start, end = (np.geomspace(low, high, config.grid_size) for low, high in ranges)
    pairs = np.stack(np.meshgrid(start, end, indexing="ij"), axis=-1)
    losses, last = scores(config, problem, pairs)
    at = np.unravel_index(np.argmin(losses), losses.shape)
    row = {"part": "landscape", "problem": problem.name, "label": problem.label}
    row |= {"start_rates": start.tolist(), "end_rates": end.tolist(), "losses": losses.tolist()}
    row |= {"best": pairs[at].tolist(), "num_trainings": len(scoring_keys(config, problem))}
    return row | {"best_loss": float(losses[at]), "best_last_loss": float(last[at])}
