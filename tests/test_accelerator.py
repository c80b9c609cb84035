"""benchmarks.accelerator: the weights that cuDNN is given, and how a run is resumed."""

import json

import jax
import pytest
from jax.experimental import rnn

from benchmarks import accelerator
from benchmarks.model import checked_error, layer_loss, make_layer, reference_gradient


def test_cudnn_is_given_our_weights():
    """By the reference implementation of the same function, which needs no GPU."""

    def reference(xs, h, c, weights, lengths, *sizes):
        inputs, hidden, layers, _, both = sizes
        parts = rnn.unpack_lstm_weights(weights, inputs, hidden, layers, both)
        return rnn.lstm_ref(xs, h, c, *parts, lengths, *sizes)

    # The code that is compared with, here and in JAX, adds a vector to a matrix.
    with jax.numpy_rank_promotion("allow"):
        layer = make_layer(layer_loss, hidden_size=8, num_steps=5, batch=3)
        found = accelerator.cudnn_lstm(layer, reference)
        gradient = found.gradient(found.run())
        assert checked_error("cuDNN", gradient, reference_gradient(layer), 1e-5) < 1e-5


def test_a_run_goes_on_with_the_parts_that_are_missing(tmp_path, monkeypatch, capsys):
    calls = []

    def part(name, fails=False):
        def measure(sizes):
            calls.append(name)
            if fails:
                raise RuntimeError("no such device")
            return [{"contender": name, "ms": 1.0}]

        return measure

    path = tmp_path / "results.json"
    parts = {"one": (part("one"), 1.0), "two": (part("two", fails=True), 1.0)}
    monkeypatch.setattr(accelerator, "PARTS", parts)
    accelerator.run(["one", "two"], accelerator.FULL, 60, path)
    assert calls == ["one", "two"]
    written = json.loads(path.read_text())["parts"]
    assert written["one"]["rows"] == [{"contender": "one", "ms": 1.0}]
    assert written["two"]["error"] == "RuntimeError: no such device"

    parts["two"] = part("two"), 1.0
    parts["three"] = part("three"), 100.0
    accelerator.run(["one", "two", "three"], accelerator.FULL, 60, path)
    assert calls == ["one", "two", "two"]
    assert "three: not begun, 60 s are left and it may take 100 s" in capsys.readouterr().out
    assert json.loads(path.read_text())["parts"].keys() == {"one", "two"}

    with pytest.raises(SystemExit, match="at other sizes or on another machine"):
        accelerator.run(["one"], accelerator.SMALL, 60, path)
