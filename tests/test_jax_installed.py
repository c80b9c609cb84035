"""The JAX that is installed computes what the tests of this package rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.optimised
@pytest.mark.parametrize(("dtype", "num_rows"), [("float64", 16_385), ("float32", 32_769)])
def test_sums_of_many_small_products_are_right(dtype, num_rows):
    """jaxlib 0.10.2 sums them wrongly under jit on a CPU, 0.8 % too little (jax issue 39103).

    One row more than a power of two times the block that XLA splits such a loop into.
    """
    with jax.enable_x64(dtype == "float64"):
        rows = np.random.default_rng(0).normal(size=(num_rows, 3)).astype(dtype)
        identity = jnp.eye(3, dtype=dtype)

        def squared_norms(rows):
            return jax.vmap(lambda row: jnp.sum((identity @ row) ** 2))(rows)

        computed = np.asarray(jax.jit(squared_norms)(rows))
        expected = np.sum(rows.astype(np.float64) ** 2, axis=1)
        np.testing.assert_allclose(computed, expected, rtol=1e-5)
        total = jax.jit(lambda rows: jnp.sum(squared_norms(rows)))(rows)
        np.testing.assert_allclose(total, expected.sum(), rtol=1e-4)
