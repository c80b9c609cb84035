"""Pytrees of arrays and keys, as arrays of NumPy that can be saved, compared and hashed."""

import hashlib
import json
from typing import Any

import jax
import numpy as np


def hash_of_arrays(tree: Any) -> str:
    """SHA-256 over structure, shapes, dtypes and values of a pytree."""
    sha256 = hashlib.sha256(json.dumps(describe(tree)).encode())
    for values in leaf_bytes(tree):
        sha256.update(values)
    return sha256.hexdigest()


def on_the_host(leaf: Any) -> np.ndarray:
    """The leaf as an array of NumPy, which orbax can save; of a key, its data."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def describe(tree: Any) -> dict[str, str]:
    """{".params['readout']": "float32(6, 5)", ...}, for a message that names what differs."""
    return {
        jax.tree_util.keystr(path): f"{jax.numpy.result_type(leaf)}{np.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def empty_like(leaf: Any) -> np.ndarray:
    """An array to restore the leaf, which may be a `jax.ShapeDtypeStruct`, into."""
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.empty(leaf.shape, leaf.dtype)


def restored_like(values: np.ndarray, leaf: Any) -> Any:
    """The restored array as the leaf is: of NumPy, of JAX, or keys."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.array(values), impl=jax.random.key_impl(leaf))
    return values if isinstance(leaf, np.ndarray | np.generic) else jax.numpy.array(values)


def leaf_bytes(tree: Any) -> list[bytes]:
    """The values of each leaf."""
    return [on_the_host(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
