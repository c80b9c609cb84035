"""Writes text with a character model that `python -m experiments.ptb` has trained.

    python -m experiments.sample --workdir DIR --prompt "the company" --length 300 --temperature 0.8

The model is the best one of the run by validation; the run may still be going on. The prompt stands
at the beginning of a line. The same seed, prompt and temperature give the same text.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from absl import flags

import artbp
from experiments.common.checkpoints import Checkpoints
from experiments.common.config import check_seed
from experiments.common.errors import ExperimentError
from experiments.common.guarded import run_guarded
from experiments.common.workdir import read_workdir
from experiments.ptb import model as model_lib
from experiments.ptb.vocabulary import NEWLINE, SPACE, read_vocabulary


class SampleError(ExperimentError):
    """A length or temperature that cannot be used."""


@functools.partial(jax.jit, static_argnames=("model", "length"))
def generate(
    model: model_lib.CharacterModel,
    params: Any,
    prompt: jax.Array,
    rng_key: jax.Array,
    temperature: jax.Array,
    *,
    length: int,
) -> jax.Array:
    """`length` symbols that follow the prompt.

        for x in prompt: carry, y = cell(params, carry, x)
        for key in keys:
            x ~ softmax(logits(params, y) / temperature)
            carry, y = cell(params, carry, x)

    Args:
        model: see `character_model`.
        params: its parameters.
        prompt: int32 [P], P >= 1.
        rng_key: typed key; consumed.
        temperature: positive; 1 is the model's own distribution, lower is more cautious.
        length: number of symbols, 1 or more.

    Returns:
        int32 [length].
    """

    def step(state, key):
        carry, y = state
        x = jax.random.categorical(key, model_lib.logits(params, y) / temperature)
        return model.cell(params, carry, x), x[0]

    carry, ys = artbp.unroll(model.cell, params, model.initial_carry(params, 1), prompt[:, None])
    _, symbols = jax.lax.scan(step, (carry, ys[-1]), jax.random.split(rng_key, length))
    return symbols.astype(jnp.int32)


def sample(workdir_path: str, *, prompt: str, length: int, temperature: float, seed: int) -> str:
    """The text that the best model of a run writes after `prompt`, without the prompt.

    Raises:
        DataError: a symbol in the prompt that the training text does not have.
        SampleError: a length below 1, or a temperature that is not positive.
        ConfigError: a seed out of range.
        WorkdirError, CheckpointError: the folder holds no ptb run, or one without an evaluation.
    """
    if length < 1:
        raise SampleError(f"--length is {length}: expected 1 or more.")
    if not 0.0 < temperature < float("inf"):
        raise SampleError(
            f"--temperature is {temperature}: expected a positive number. A small one, such as "
            "0.01, nearly always takes the most likely symbol."
        )
    check_seed("--seed", seed)
    workdir, values = read_workdir(workdir_path)
    config = ml_collections.FrozenConfigDict(values)
    vocabulary = read_vocabulary(workdir)
    model = model_lib.model_from_config(config, len(vocabulary))
    # A line begins after the end of the one before, as in evaluation.
    characters = NEWLINE + prompt.replace(" ", SPACE)
    symbols = vocabulary.encode(characters, "--prompt")
    like = jax.eval_shape(model.init, jax.random.key(0))
    with Checkpoints(workdir.checkpoints_path, read_only=True) as checkpoints:
        params, _ = checkpoints.restore_best(like)
    text = generate(
        model,
        params,
        jnp.asarray(symbols),
        jax.random.key(seed),
        jnp.float32(temperature),
        length=length,
    )
    return vocabulary.decode(jax.device_get(text)).replace(SPACE, " ")


def _define_flags() -> None:
    # Not on import: the training command has a --workdir of its own, in the same process in tests.
    flags.DEFINE_string("workdir", None, "Folder of a ptb run.", required=True)
    flags.DEFINE_string("prompt", "", "What the text begins with.")
    flags.DEFINE_integer("length", 500, "Characters to write.")
    flags.DEFINE_float("temperature", 1.0, "Below 1: more cautious; above: wilder.")
    flags.DEFINE_integer("seed", 0, "Another seed, another text.")


def _main() -> None:
    values = flags.FLAGS
    text = sample(
        values.workdir,
        prompt=values.prompt,
        length=values.length,
        temperature=values.temperature,
        seed=values.seed,
    )
    print(values.prompt + text)


if __name__ == "__main__":
    _define_flags()
    run_guarded(_main)
