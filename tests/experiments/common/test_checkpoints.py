from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common.checkpoints import Checkpoints
from experiments.common.errors import CheckpointError


class State(NamedTuple):
    params: dict
    opt_state: tuple
    rng_key: jax.Array
    scratch: tuple
    done: jax.Array


def make_state(fill=1.0, size=3):
    params = {"a/b": jnp.full((2, size), fill), "layers": [jnp.full(2, fill, jnp.bfloat16), None]}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    rng_key = jax.random.key(int(fill))
    return State(params, optimizer.init(params), rng_key, (), jnp.asarray(True))


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_state_comes_back_with_its_types_and_keys(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_latest(make_state()) is None
        checkpoints.save_latest(1, make_state(5.0), {"updates": 7, "loss": 0.1, "best": None})
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored = checkpoints.restore_latest(make_state(0.0))
    assert restored is not None
    assert_same(restored[0], make_state(5.0))
    assert isinstance(restored[0].opt_state[1][0], optax.ScaleByAdamState)
    assert restored[1] == {"updates": 7, "loss": 0.1, "best": None}


def test_latest_and_best_are_kept_apart(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        for number in (3, 5, 9):
            state = make_state(float(number))
            checkpoints.save_latest(number, state, {"number": number})
            if number < 9:
                checkpoints.save_best(state.params, {"number": number})
        best, record = checkpoints.restore_best(jax.eval_shape(lambda: make_state().params))
        assert record == {"number": 5}
        assert_same(best, make_state(5.0).params)
        restored = checkpoints.restore_latest(make_state())
        assert restored is not None and restored[1] == {"number": 9}
    assert sorted(p.name for p in (tmp_path / "c" / "latest").iterdir()) == ["5", "9"]
    assert [p.name for p in (tmp_path / "c" / "best").iterdir()] == ["2"]


def test_another_shape_is_refused(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save_latest(1, make_state(size=3), {})
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            checkpoints.restore_latest(make_state(size=4))
        assert ".params['a/b']: float32(2, 3) saved, float32(2, 4) expected" in str(caught.value)
        with pytest.raises(CheckpointError, match=r"rng_key: .* saved, absent expected"):
            checkpoints.restore_latest(make_state()._replace(rng_key=()))


def test_nothing_to_read(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        Checkpoints(tmp_path / "c", read_only=True)
    assert not (tmp_path / "c").exists()
    with (
        Checkpoints(tmp_path / "c") as checkpoints,
        pytest.raises(CheckpointError, match="no checkpoint"),
    ):
        checkpoints.restore_best(make_state().params)


def test_the_best_params_may_be_saved_again_while_they_are_read(tmp_path, monkeypatch):
    """A run that goes on renames 2 and deletes 1 after a reader has listed 1."""
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save_best(make_state(1.0).params, {"epoch": 1})
        reader = Checkpoints(tmp_path / "c", read_only=True)
        restore = reader._best.restore

        def after_a_save(number, like):
            if number == 1:
                checkpoints.save_best(make_state(2.0).params, {"epoch": 2})
            return restore(number, like)

        monkeypatch.setattr(reader._best, "restore", after_a_save)
        params, record = reader.restore_best(make_state().params)
    assert record == {"epoch": 2}
    assert_same(params, make_state(2.0).params)
