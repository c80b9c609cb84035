"""Writes text with a character model that `python -m experiments.ptb` has trained.

    python -m experiments.sample --workdir DIR --prompt "the company" --length 300 --temperature 0.8

The model is the best one of the run by validation; the run may still be going on. The prompt stands
at the beginning of a line. The same seed, prompt and temperature give the same text.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

import artbp
from experiments.common.config import check_seed
from experiments.common.errors import ExperimentError, run_guarded
from experiments.common.workdir import read_workdir
from experiments.ptb.data import NEWLINE, SPACE, read_vocabulary
from experiments.ptb.model import CharacterModel, character_model
from experiments.ptb.trained import best_params
from experiments.tasks import losses


@functools.partial(jax.jit, static_argnames=("model", "length"))
def generate(
    model: CharacterModel, params: Any, prompt: Any, rng_key: Any, temperature: Any, *, length: int
) -> jax.Array:
    """`length` symbols that follow the prompt, int32 [length].

        for x in prompt: carry, y = cell(params, carry, x)
        for key in keys:
            x ~ softmax(readout(params, y) / temperature)
            carry, y = cell(params, carry, x)

    `prompt` is int32 [P], P >= 1. A temperature of 1 is the model's own distribution, a lower one
    is more cautious.
    """

    def step(state, key):
        carry, y = state
        x = jax.random.categorical(key, losses.readout(params, y) / temperature)
        return model.cell(params, carry, x), x[0]

    carry, ys = artbp.unroll(model.cell, params, model.initial_carry(params, 1), prompt[:, None])
    _, symbols = jax.lax.scan(step, (carry, ys[-1]), jax.random.split(rng_key, length))
    return symbols.astype(jnp.int32)


def sample(workdir_path: str, *, prompt: str, length: int, temperature: float, seed: int) -> str:
    """The text that the best model of a run writes after `prompt`, without the prompt.

    Raises ExperimentError for a symbol that the training text does not have, a number out of range,
    or a folder without a ptb run that has been evaluated.
    """
    if length < 1:
        raise ExperimentError(f"--length is {length}: expected 1 or more.")
    if not 0.0 < temperature < float("inf"):
        raise ExperimentError(f"--temperature is {temperature}: expected a positive number.")
    check_seed("--seed", seed)
    workdir, values = read_workdir(workdir_path)
    vocabulary = read_vocabulary(workdir)
    model = character_model(num_symbols=len(vocabulary), **values["model"])
    # A line begins after the end of the one before, as in evaluation.
    symbols = vocabulary.encode(NEWLINE + prompt.replace(" ", SPACE), "--prompt")
    params = best_params(workdir, model)
    rng_key, warmth = jax.random.key(seed), jnp.float32(temperature)
    text = generate(model, params, jnp.asarray(symbols), rng_key, warmth, length=length)
    return vocabulary.decode(jax.device_get(text)).replace(SPACE, " ")


def _main() -> None:
    names = ("prompt", "length", "temperature", "seed")
    given: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    print(given["prompt"] + sample(flags.FLAGS.workdir, **given))


if __name__ == "__main__":
    # Not on import: the training command has a --workdir of its own, in the same process in tests.
    flags.DEFINE_string("workdir", None, "Folder of a ptb run.", required=True)
    flags.DEFINE_string("prompt", "", "What the text begins with.")
    flags.DEFINE_integer("length", 500, "Characters to write.")
    flags.DEFINE_float("temperature", 1.0, "Below 1: more cautious; above: wilder.")
    flags.DEFINE_integer("seed", 0, "Another seed, another text.")

    run_guarded(_main)
