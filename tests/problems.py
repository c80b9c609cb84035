"""Small recurrent problems, and slow, obvious ways to compute their gradients."""

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp import cells

CELLS = ("linear", "rnn", "lstm", "gru")

# Rows of the registry that differ from another one in an option alone: further cases of the same
# code. Tests of what every row does leave them to `-m ''`; what a row claims is tested for all.
SAME_CODE = (
    "tbptt_drawn_offset",
    "tbptt_short_window",
    "tbptt_past_weights",
    "tbptt_window_losses",
    "uncompensated_polynomial_4",
    "artbp_polynomial_6",
    "artbp_geometric",
    "random_truncation",
    "gpes",
    "nres",
)
REGISTRY_ROWS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SAME_CODE else [])
    for name in artbp.REGISTRY
]


class SmallProblem(NamedTuple):
    """A cell with a readout, data to run it on, and parameters that keep gradients alive."""

    cell: Any
    loss_fn: Any
    params: Any
    carry: Any
    stream: artbp.Stream


def make_problem(name="rnn", num_steps=9, batch=2, *, resets=False, mask=False, seed=0):
    """A float problem in the default dtype: recurrent weights near orthogonal, random targets."""
    reference = getattr(cells, name)
    dtype = jnp.result_type(float)
    keys = jax.random.split(jax.random.key(seed), 6)
    inputs, hidden = 3, 4
    params = {
        "cell": reference.init(keys[0], inputs, hidden, dtype=dtype),
        "readout": jax.random.normal(keys[1], (hidden,), dtype),
    }
    if name == "lstm":  # gates half open would make the memory fade within a few steps
        params["cell"]["bias"] = params["cell"]["bias"] + 0.5
    stream = artbp.Stream(
        jax.random.normal(keys[2], (num_steps, batch, inputs), dtype),
        jax.random.normal(keys[3], (num_steps, batch), dtype),
        resets=jax.random.bernoulli(keys[4], 0.15, (num_steps, batch)) if resets else None,
        mask=jax.random.bernoulli(keys[5], 0.7, (num_steps, batch)) if mask else None,
    )
    carry = jax.tree.map(lambda leaf: leaf + 0.3, reference.initial_carry(params["cell"], batch))

    cell = reference.with_params(lambda params: params["cell"])

    def loss_fn(params, y, target):
        return 0.5 * (y @ params["readout"] - target) ** 2

    return SmallProblem(cell, loss_fn, params, carry, stream)


def as_function(problem):
    """The problem with a function around its cell, which hides the hand-written recurrence."""
    return problem._replace(cell=lambda params, carry, x: problem.cell(params, carry, x))


def summed_loss(problem, params, gates=None):
    """The summed losses through `artbp.unroll` over the whole stream."""
    stream = problem.stream
    _, ys = artbp.unroll(
        problem.cell,
        params,
        problem.carry,
        stream.xs,
        gates=gates,
        resets=stream.resets,
    )
    losses = jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, stream.targets)
    return jnp.sum(losses if stream.mask is None else jnp.where(stream.mask, losses, 0.0))


def gated_gradient(problem, gates, params=None):
    """The gradient of `summed_loss`."""
    params = problem.params if params is None else params
    return jax.grad(lambda params: summed_loss(problem, params, gates))(params)


def bptt_gradient(problem):
    """Gradient of the summed losses of a plain Python loop, without any of our code."""

    def loss(params):
        carry, total, stream = problem.carry, 0.0, problem.stream
        for t in range(stream.num_steps):
            if stream.resets is not None:
                flags = stream.resets[t][:, None]
                carry = jax.tree.map(lambda s, f=flags: jnp.where(f, jnp.zeros_like(s), s), carry)
            carry, y = problem.cell(params, carry, stream.xs[t])
            losses = problem.loss_fn(params, y, stream.targets[t])
            counted = losses if stream.mask is None else jnp.where(stream.mask[t], losses, 0.0)
            total += jnp.sum(counted)
        return total

    return jax.grad(loss)(problem.params)


def one_pass(estimator, problem, key=None, update=lambda params, grads: params):
    """Runs an estimator over one pass of the stream; returns (summed gradient, infos, state)."""
    key = jax.random.key(1) if key is None else key
    params = problem.params
    state = estimator.init(params, problem.carry, rng_key=key)
    total, infos = jax.tree.map(jnp.zeros_like, params), []
    while not (infos and infos[-1].end_of_stream):
        grads, state, info = estimator.estimate(params, state, problem.stream)
        total = jax.tree.map(jnp.add, total, grads)
        params = update(params, grads)
        infos.append(info)
    return total, infos, state


def patterns(num_steps):
    """All boundary patterns of T steps, bool [2^(T−1), T]; the end of the stream is a boundary."""
    inner = itertools.product([False, True], repeat=num_steps - 1)
    return np.array([(*pattern, True) for pattern in inner])


def ages(pattern):
    """The age k of every step of a pattern."""
    age, out = 0, []
    for boundary in pattern:
        age += 1
        out.append(age)
        age = 0 if boundary else age
    return np.array(out)


def probability(pattern, law):
    """P(X = pattern) under a law; the last boundary, the stream's end, is free."""
    hazard = law.hazard(ages(pattern))[:-1]
    return np.prod(np.where(pattern[:-1], hazard, 1 - hazard))


def lengths(pattern):
    """Segment lengths of a pattern."""
    return np.diff(np.flatnonzero(np.concatenate([[True], pattern])))


def relative_error(tree, expected):
    """‖tree − expected‖ / ‖expected‖ over all leaves together."""
    a = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    b = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(expected)])
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def run_python(code, **environment):
    """Runs code in a process of its own, for settings that JAX reads once; asserts success."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here)])
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
