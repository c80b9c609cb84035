"""The code of the page "Reinforcement learning" runs as it stands, and its policy learns."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.fields import default_config
from experiments.recurrent_ppo import maze
from experiments.recurrent_ppo.config import FIELDS
from experiments.recurrent_ppo.training import collect, make_stream, run_network

PAGE = Path(__file__).parents[3] / "docs" / "reinforcement_learning.md"
RESULTS = PAGE.parents[1] / "experiments" / "results" / "recurrent_ppo" / "results.json"
(CODE,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_code_is_short():
    assert len(re.findall(r"\S.*\n", CODE)) <= 30


def test_the_numbers_of_the_page_are_those_of_the_results():
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    returns = {row["label"].split(",")[0]: np.array(row["returns"]) for row in rows}
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for label in ("TBPTT 32", "full BPTT"):
        assert (returns[label].round(2) == 1).all()
    short = [f"{returns[f'TBPTT {length}'].mean():.2f}" for length in (4, 8, 16)]
    assert "TBPTT 4, 8 and 16 end at {}, {} and {} on average".format(*short) in text
    assert sorted(returns["TBPTT 8"].round(2)) == [-0.01, 1, 1, 1, 1]
    unbiased = returns["unbiased TBPTT 8"]
    found = returns["ARTBP 8"].mean(), unbiased.mean(), unbiased.min()
    assert "{:.2f} and unbiased TBPTT 8 at {:.2f}, with one seed of five at {:.2f}".format(
        *found
    ) in (text)
    assert f"without it end at {returns['No compensation 8'].mean():.2f}" in text


def test_the_code_learns_to_remember():
    """A corridor of 3 steps: without memory the return is at most 0, with memory 1."""
    page = {}
    exec(compile(CODE, str(PAGE), "exec"), page)
    config = default_config(FIELDS)
    config.corridor_length = 3
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "gru": artbp.cells.gru.init(keys[0], maze.NUM_SYMBOLS, 32),
        "policy": jnp.zeros((32, maze.NUM_ACTIONS)),
        "value": jnp.zeros(32),
    }

    @jax.jit
    def rollout(params, carry, at, key):
        ours = {
            "cell": params["gru"],
            "policy": {"kernel": params["policy"], "bias": 0.0},
            "value": {"kernel": params["value"][:, None], "bias": 0.0},
        }
        carry, at, seen = collect(config, ours, carry, at, key)
        stream = make_stream(config, seen, run_network(ours, carry, at)[1][1])
        target = stream.targets
        recorded = {"symbol": stream.xs, "is_first": stream.resets, "action": target.action}
        recorded |= {"log_prob": target.log_prob, "advantage": target.advantage}
        rewards = jnp.sum(seen.outcome.reward) / jnp.sum(seen.outcome.is_end)
        return carry, at, recorded | {"return": target.return_}, rewards

    opt_state, at = page["optimizer"].init(params), maze.begin(keys[1], 32)
    carry, returns = jnp.zeros((32, 32)), []
    for key in jax.random.split(keys[2], 40):
        new_carry, at, recorded, mean_return = rollout(params, carry, at, key)
        for update_key in jax.random.split(key, 4):
            params, opt_state = page["update"](params, opt_state, recorded, carry, update_key)
        carry = new_carry
        returns.append(float(mean_return))
    assert returns[0] < 0
    assert sum(returns[-5:]) / 5 > 0.8
