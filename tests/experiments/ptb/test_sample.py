"""Text from a checkpoint: the loop it stands for, its seed, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.errors import ExperimentError
from experiments.ptb.model import character_model
from experiments.sample import generate, sample
from experiments.tasks.losses import readout


def test_almost_zero_temperature_takes_the_most_likely_symbol():
    model = character_model("gru", num_symbols=7, hidden_size=6)
    params = jax.tree.map(lambda leaf: 6.0 * leaf, model.init(jax.random.key(0)))
    prompt = jnp.asarray([4, 4, 1])
    carry = model.initial_carry(params, 1)
    for x in prompt:
        carry, y = model.cell(params, carry, x[None])
    expected = []
    for _ in range(20):
        x = jnp.argmax(readout(params, y), axis=-1)
        expected.append(int(x[0]))
        carry, y = model.cell(params, carry, x)
    cold = functools.partial(
        generate, model, params, rng_key=jax.random.key(1), temperature=jnp.float32(1e-4), length=20
    )
    assert len(set(expected)) > 3  # a model stuck at one symbol would hide a mistake
    assert cold(prompt).tolist() == expected
    assert cold(jnp.asarray([3, 1, 4])).tolist() != expected


def test_symbols_are_drawn_with_the_model_s_probabilities():
    model = character_model("lstm", num_symbols=5, hidden_size=4)
    params = jax.tree.map(lambda leaf: 2.0 * leaf, model.init(jax.random.key(0)))
    _, y = model.cell(params, model.initial_carry(params, 1), jnp.asarray([2]))
    probabilities = jax.nn.softmax(readout(params, y)[0] / 0.7)
    keys = jax.random.split(jax.random.key(3), 4000)
    one = jax.vmap(
        lambda key: generate(model, params, jnp.asarray([2]), key, jnp.float32(0.7), length=1)[0]
    )
    shares = np.bincount(one(keys), minlength=5) / len(keys)
    # Five standard errors for each of five shares: false alarms below 1e-5.
    assert np.all(np.abs(shares - probabilities) < 5 * np.sqrt(0.25 / len(keys)))


def test_the_seed_decides_the_text(finished_run):
    workdir, _ = finished_run

    def text(prompt="the bird", temperature=1.0, seed=0):
        return sample(workdir, prompt=prompt, length=80, temperature=temperature, seed=seed)

    assert text() == text()
    assert len(text()) == 80 and "_" not in text()
    assert text() != text(seed=1)
    assert text() != text(temperature=0.3)
    assert len(text(prompt="")) == 80


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"prompt": "The bird!"}, "contains '!', 'T'"),
        ({"length": 0}, "--length is 0"),
        ({"temperature": 0.0}, "--temperature is 0.0"),
        ({"temperature": -1.0}, "--temperature is -1.0"),
        ({"temperature": float("nan")}, "--temperature is nan"),
    ],
)
def test_what_cannot_be_sampled_is_refused(finished_run, change, what):
    given = {"prompt": "the", "length": 5, "temperature": 1.0, "seed": 0}
    with pytest.raises(ExperimentError, match=what):
        sample(finished_run[0], **given | change)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match="holds no run"):
        sample(tmp_path, prompt="", length=5, temperature=1.0, seed=0)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExperimentError, match="holds no ptb run"):
        sample(tmp_path, prompt="", length=5, temperature=1.0, seed=0)
