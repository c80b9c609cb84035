"""`docs/coming_from.md`: our programs do what the programs of other libraries on the page do.

The programs run as they stand there. Those of PyTorch, Lightning, ignite and Keras have been run by
`coming_from/record.py`, which has committed their weights after 20 updates.
"""

import functools
import importlib.util
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coming_from import record
from coming_from.record import SECTIONS, batches_of, blocks, execute
from flax import linen as nn

pytestmark = pytest.mark.usefixtures("float64")

LIBRARIES = {
    "ignite": ["torch", "ignite"],
    "keras": ["keras", "tensorflow"],
    "lightning": ["torch"],
    "pytorch": ["torch"],
}


@pytest.fixture(autouse=True)
def promotion_of_users(strict_promotion):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def recorded(name, folder=record.FOLDER):
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def weights_of(arrays, when):
    return {key[len(when) + 1 :]: w for key, w in arrays.items() if key.startswith(f"{when}/")}


def run(title, namespace, which=slice(None)):
    """The variables of one of our programs, after the block that the programs share."""
    for code in blocks("The model of the examples", "python") + blocks(title, "python")[which]:
        execute(code, namespace)
    return namespace


def our_weights(name, dtype):
    """The weights after our program, named as the record names them."""
    arrays = {key: a.astype(dtype) for key, a in recorded(name).items() if key != "versions"}
    xs, targets, weights = arrays["xs"], arrays["targets"], weights_of(arrays, "before")
    namespace = {"xs": xs, "targets": targets, "rows": record.ROWS}
    namespace["batches"] = batches_of(name, xs, targets)
    namespace["weights"] = list(weights.values()) if name == "keras" else weights
    params = run(SECTIONS[name], namespace)["params"]
    if name == "keras":
        lstm, dense = params["lstm"], params["dense"]
        leaves = [lstm["input"], lstm["recurrent"], lstm["bias"], dense["kernel"], dense["bias"]]
        params = dict(zip(weights, leaves, strict=True))
    assert {w.dtype for w in params.values()} == {np.dtype(dtype)}
    return params


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float(np.abs(np.asarray(one[key]) - other[key]).max()) for key in one)


def test_every_program_of_the_page_is_run_here():
    text = record.PAGE.read_text()
    ours = {title: len(blocks(title, "python")) for title in re.findall(r"^## (.*)$", text, re.M)}
    expected = dict.fromkeys(ours, 0) | dict.fromkeys(SECTIONS.values(), 1)
    expected |= {"The model of the examples": 1, SECTIONS["purejaxrl"]: 2, SECTIONS["pytorch"]: 2}
    assert ours == expected
    assert sum(ours.values()) == text.count("```python")


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("ignite", np.float64, 1e-12),
        ("keras", np.float32, 1e-5),
        ("lightning", np.float64, 1e-12),
        ("pytorch", np.float64, 1e-12),
    ],
)
def test_the_weights_after_20_updates_are_the_same(name, dtype, tolerance):
    before, after = (weights_of(recorded(name), when) for when in ("before", "after"))
    assert largest_difference(before, after) > 0.1
    assert largest_difference(our_weights(name, dtype), after) < tolerance


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_the_script_gives_the_recorded_file(name, tmp_path):
    for module in LIBRARIES[name]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    command = [sys.executable, record.__file__, name, "--to", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    ours, again = recorded(name), recorded(name, tmp_path)
    numbers = ours.keys() - {"versions"}
    assert numbers == again.keys() - {"versions"}
    assert max(np.abs(ours[key] - again[key]).max() for key in numbers) < 1e-6


def test_scanned_rnn(monkeypatch):
    """Outputs, the last carry, and the gradients by params, first carry and inputs."""
    monkeypatch.setattr(nn, "GRUCell", functools.partial(nn.GRUCell, param_dtype=float))
    theirs = {"functools": functools, "jnp": jnp, "nn": nn}
    execute(blocks(SECTIONS["purejaxrl"], "py")[0], theirs)
    scanned = theirs["ScannedRNN"]()
    rng = np.random.default_rng(0)
    xs, carry, done = rng.normal(size=(9, 3, 2)), rng.normal(size=(3, 4)), rng.random((9, 3)) < 0.3
    assert done[0].any() and done[1:].any() and not done.all(axis=0).any()
    weights = scanned.init(jax.random.key(0), carry, (xs, done))["params"]
    cotangents = rng.normal(size=(3, 4)), rng.normal(size=(9, 3, 4))

    def run_theirs(weights, carry, xs):
        return scanned.apply({"params": weights}, carry, (xs, done))

    def run_ours(weights, carry, xs):
        given = {"weights": weights, "carry": carry, "xs": xs, "done": done}
        layer = run(SECTIONS["purejaxrl"], dict(given), slice(0, 1))
        unroll = run(SECTIONS["purejaxrl"], {**given, "nn": nn}, slice(1, 2))
        return [(namespace["last_carry"], namespace["ys"]) for namespace in (layer, unroll)]

    expected, pull_back = jax.vjp(run_theirs, weights, carry, xs)
    outputs, our_pull_back = jax.vjp(run_ours, weights, carry, xs)
    nothing = jax.tree.map(np.zeros_like, cotangents)
    gradients = pull_back(cotangents)
    assert all(np.abs(leaf).max() > 0.1 for leaf in jax.tree.leaves(gradients))
    for number, pair in enumerate([[cotangents, nothing], [nothing, cotangents]]):
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12),
            (outputs[number], our_pull_back(pair)),
            (expected, gradients),
        )


def persistent_es(theta, perturbations, sigma, unroll, first_state):
    """Algorithm 2 of Vicol et al. (2021), particle by particle: the estimate of each unroll.

    `perturbations[u][i]` is that of particle 2 i in unroll u; particle 2 i + 1 has its negative.
    """
    num_particles = 2 * len(perturbations[0])
    states = [first_state] * num_particles
    sums = [0.0] * num_particles
    for drawn in perturbations:
        estimate = 0.0
        for i in range(num_particles):
            epsilon = drawn[i // 2] if i % 2 == 0 else -drawn[i // 2]
            states[i], loss = unroll(states[i], theta + epsilon)
            sums[i] = sums[i] + epsilon
            estimate = estimate + sums[i] * loss
        yield estimate / (num_particles * sigma**2)


def unroll_influence_balancing(state, theta):
    """K = 2 steps of the problem of persistent_es, with the loss after the last."""
    signs = np.array([1.0] * 10 + [-1.0] * 13)
    for _ in range(2):
        state = 0.5 * (state + np.append(state[1:], 0.0)) + theta * signs
    return state, 0.5 * (state[0] - 1) ** 2


def test_persistent_es():
    """On our draws, the estimates are those of their algorithm, in both passes of the program."""
    namespace = run(SECTIONS["persistent_es"], {})
    estimate, stream = namespace["estimate"], namespace["stream"]
    theta = jnp.array([0.5])
    state = namespace["estimator"].init(theta, jnp.ones(23), rng_key=jax.random.key(0))
    for _ in range(2):
        estimates, drawn, sums = [], [], np.zeros((500, 1))
        for _ in range(3):  # after the fourth, the sums of a pass are zero again
            grads, state, _ = estimate(theta, state, stream)
            estimates.append(np.asarray(grads))
            drawn.append(np.asarray(state.inner_state.accumulated) - sums)
            sums = np.asarray(state.inner_state.accumulated)
        _, state, info = estimate(theta, state, stream)
        assert info.end_of_stream and not np.any(state.inner_state.accumulated)
        expected = list(
            persistent_es(np.array([0.5]), drawn, 0.1, unroll_influence_balancing, np.ones(23))
        )
        np.testing.assert_allclose(estimates, expected, rtol=1e-10)
        # The draws have the standard deviation 0.1, within six standard errors.
        assert all(0.08 < d.std() < 0.12 for d in drawn)
