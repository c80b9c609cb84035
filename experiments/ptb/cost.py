"""What a run costs, for --dry_run, without reading Penn Treebank and without running anything."""

from typing import Any

import jax
import numpy as np

from experiments.common.arms import parse
from experiments.ptb import data
from experiments.ptb.run import is_penn_treebank, load_corpus, make_parts


def cost(config: Any) -> list[str]:
    """Lines about the text, parameters, steps and memory; raises the errors of `run.prepare`."""
    if is_penn_treebank(config):
        num_symbols, length = data.NUM_SYMBOLS, data.NUM_TRAIN_CHARACTERS
        length += 2 * data.NUM_TRAIN_LINES * config.data.keep_line_spaces
    else:
        corpus = load_corpus(config, None)
        num_symbols, length = len(corpus.vocabulary), len(corpus.train)
    steps = data.num_row_steps(length, config.batch)
    parts, segment = make_parts(config, num_symbols), parse(config.arm).length

    def initial() -> tuple[Any, Any, Any]:
        params = parts.model.init(jax.random.key(0))
        carry = parts.model.initial_carry(params, config.batch)
        state = parts.estimator.init(params, carry, rng_key=jax.random.key(0))
        return params, parts.optimizer.init(params), state

    params, opt_state, state = jax.eval_shape(initial)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    megabytes = {
        "parameters": _bytes(params),
        "gradient": _bytes(params),
        "optimiser state": _bytes(opt_state),
        "carry": _bytes(state.carry),
        "residuals and carries for the backward pass": _bytes((state.scratch, state.inner_state)),
        "training text": 2 * 4 * steps * config.batch,  # xs and targets, int32
    }
    shown = ", ".join(f"{name} {size / 1e6:.3g}" for name, size in megabytes.items())
    return [
        f"Text: {config.data.source}, {num_symbols} symbols, {length:,} training characters.",
        f"Parameters: {num_params:,}.",
        f"Steps of an epoch: {steps:,} time steps of {config.batch} rows, about "
        f"{steps / segment:,.0f} updates (one every {segment:g} time steps on average). "
        f"Epochs: {config.num_epochs}.",
        f"Memory in MB: {shown}; {sum(megabytes.values()) / 1e6:.3g} together. JAX itself and the "
        "temporaries of compiled programs come on top.",
    ]


def _bytes(tree: Any) -> int:
    """The size of all arrays of a tree of shapes; a key counts as its four bytes twice."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        total += 8 if is_key else int(np.prod(leaf.shape)) * leaf.dtype.itemsize
    return total
