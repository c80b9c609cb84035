"""What the experiments refuse, before they write anything: bad configurations and --tensorboard."""

import importlib
from pathlib import Path

import pytest

from experiments.common import cli
from experiments.common.config import load_config
from experiments.common.errors import ConfigError, ExperimentError

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = (
    "attentive_backtracking",
    "auxiliary",
    "bias",
    "compare",
    "critic",
    "hyperparameters",
    "influence_balancing",
    "k1k2",
    "long_memory",
    "look_back",
    "lorenz",
    "memory",
    "phase",
    "recurrent_ppo",
    "stability",
    "target_propagation",
    "teacher_forcing",
)
BAD = {
    "attentive_backtracking": [
        ("arms=('chess',)", "'chess' is unknown"),
        ("num_points=7", "num_points is 7: expected a number that divides num_updates = 5000"),
        ("store_every=30", "top_k is 4: expected less than the 2 states that a sequence stores"),
        ("num_seeds=1", "a range needs at least 2"),
    ],
    "auxiliary": [
        ("problems=('chess',)", "'chess' is unknown"),
        ("short_window=12", "short_window is 12: expected a divisor of 32"),
        ("window_length=32", "window_length is 32: expected less than 32"),
        ("weight=0.0", r"weight was given 0\.0"),
        ("num_seeds=1", "an interval needs at least 2"),
    ],
    "bias": [
        ("systems=('chess',)", "chess"),
        ("num_windows=4", "8 or more"),
        ("noisy_arms=('artbp(256, alpha=4)',)", "below window_length = 256"),
        (
            """noisy_arms=('artbp(8, alpha=4, segment_start="initial")',)""",
            "Expected segment_start=.carried",
        ),
        ("noisy_arms=('tbptt(16)',)", "expected artbp"),
        ("tested_arms=('artbp(16, alpha=5)',)", "some of noisy_arms"),
        ("tested_arms=('artbp(16, alpha=4)', 'artbp(8, alpha=4)')", "of one mean length"),
        ("family_level=1.0", "between 0 and 1"),
        ("short_memory=0", "short_memory was given 0.* more than 0"),
        ("max_draws=0", "max_draws was given 0"),
    ],
    "compare": [
        ("arms=('tbptt(0)',)", "length=0"),
        ("loss_every=1", "loss_every was given 1"),
        ("num_seeds=0", "num_seeds was given 0"),
        ("num_tuning_runs=0", "num_tuning_runs was given 0"),
        ("sgd_rates=(0.0,)", r"sgd_rates was given \(0\.0,\)"),
        ("scored_part=0.0", "scored_part"),
        ("arms=('tbptt_1_rmsprop',)", r"Expected systems=\('learning',\)"),
        ("arms=('bptt(16)',)", "needs sequences of as many"),
        ("arms=('rtrl(8)', 'rtrl(16)')", "which tables would both call .RTRL"),
        ("arms=('adam(16)',)", "'adam', which is unknown"),
        ("systems=('chess',)", "'chess' is unknown"),
    ],
    "hyperparameters": [
        ("problems=('quadratic', 'cubic')", "cubic"),
        ("arms=('bptt', 'tbptt(200)')", "expected a length below"),
        ("arms=('bptt', 'tbptt(2.5)')", "length"),
        ("arms=('bptt', 'artbp(16, alpha=2.5)')", "more than 3"),
        ("arms=('tbptt(4)',)", "expected bptt"),
        ("arms=('bptt', 'uncompensated(4, alpha=4)')", "expected tbptt or artbp"),
        ("arms=('bptt', 'tbptt(4, draw_offset=True)')", "Expected draw_offset=False"),
        ("outer_rates=(0.1, 0.01)", "rising"),
        ("start_range=(0.1, 0.2, 0.3)", "two rates"),
        ("num_seeds=0", "num_seeds was given 0"),
        ("num_sign_trainings=1", "at least 2"),
        ("first_rate=0.0", r"first_rate was given 0\.0"),
        ("arms=('bptt', 'artbp(1, alpha=4)')", "mean_length"),
        ("seed=-1", "seed is -1"),
    ],
    "influence_balancing": [
        ("arms=('tbptt',)", "'length'"),
        ("arms=('artbp(1, alpha=4)',)", "mean_length"),
        ("arms=('rtrl(16)',)", "expected tbptt, artbp, uncompensated, unbiased_tbptt"),
        ("arms=('tbptt(16, draw_offset=True)',)", "Expected draw_offset=False"),
        (
            """arms=('artbp(16, alpha=4, segment_start="initial")',)""",
            "Expected segment_start=.carried",
        ),
        ("arms=()", "arms is empty"),
        ("schedule=steps", "expected one of time steps, updates, constant"),
        ("grid_schedules=('constant',)", "grid_schedules: 'constant' is unknown"),
        ("grid_schedules=()", "grid_schedules is empty"),
        ("grid_eta_0=()", "grid_eta_0 is empty"),
        ("tolerance=0.0", "tolerance"),
        ("tolerance=0.67", "tolerance"),
        ("num_keys=0", "num_keys was given 0"),
        ("eta_0=-1.0", r"eta_0 was given -1\.0"),
        ("drive_noise=1.0", "settling"),
        ("loss_at=end", "loss_at"),
    ],
    "k1k2": [
        ("seed=-1", "seed is -1"),
        ("num_steps=0", "num_steps was given 0"),
        ("num_tuning_runs=0", "num_tuning_runs was given 0"),
        ("num_seeds=1", "an interval needs at least 2"),
        ("k2=1", "differ for k2 > k1 only"),
        ("k1_sweep=()", "k1_sweep is empty"),
        ("k2_sweep=(0,)", "k2_sweep was given 0"),
        ("k1_sweep=(1.5,)", r"k1_sweep was given 1\.5"),
        ("learning_rates=(-1.0,)", r"learning_rates was given \(-1\.0,\)"),
        ("num_bins=6", "a multiple of 4"),
        ("k1_sweep=(160,)", "expected at least 6400"),
    ],
    "critic": [
        ("seed=-1", "seed is -1"),
        ("systems=('pendulum',)", "'pendulum' is unknown"),
        ("hazard=1.0", "expected a number between 0 and 1"),
        ("num_steps=900", "expected 1000 to 60000"),
        ("critic_rate=0.0", r"critic_rate was given 0\.0"),
        ("num_seeds=1", "an interval needs at least 2"),
    ],
    "long_memory": [
        ("arms=('rtrl',)", "'rtrl' is unknown"),
        (
            "num_points=1001",
            "num_points is 1001: expected at most 103, the sequences .* of target_propagation",
        ),
        ("window=24", "window is 24: expected a number that divides 64"),
    ],
    "look_back": [
        ("hazard=0.6", "integers down to 1"),
        ("batch=32", "integers down to 1"),
        ("points=(11,)", "expected window 12"),
        ("points=(1400,)", "to 137[56]"),  # on Penn Treebank, or on generated text
        ("points=(100, 291)", "192 updates or more"),
        ("num_windows=2", "num_windows was given 2"),
        ("learning_rates=(0.0,)", "expected numbers above 0"),
    ],
    "lorenz": [
        ("seed=-1", "seed is -1"),
        ("arms=('pess',)", "'pess' is unknown"),
        ("truncation_length=300", "truncation_length is 300: expected a divisor of num_steps"),
        ("num_points=7", "num_points is 7: expected a divisor of num_updates"),
        ("num_particles=30", "num_particles is 30: expected a multiple of 20"),
        ("scale=0.0", r"scale was given 0\.0"),
        ("num_seeds=1", "an interval needs at least 2"),
        ("learning_rates=()", "learning_rates is empty"),
    ],
    "memory": [
        ("seed=-1", "seed is -1"),
        ("num_tuning_runs=0", "num_tuning_runs was given 0"),
        ("batch=0", "batch was given 0"),
        ("num_seeds=1", "a spread needs at least 2"),
        ("num_episodes=3", "expected at least 4"),
        ("arms=()", "arms is empty"),
        ("arms=('tbptt(3)',)", "lengths that divide episode_length = 32"),
        ("arms=('tbptt(32)',)", "and are smaller"),
        ("arms=('bptt(16)',)", r"or bptt\(32\)"),
        ("arms=('uoro(8)',)", "segments of a length given"),
        ("lags=(32,)", "integers from 1 to 31"),
        ("lags=(0,)", "integers, 1 or more"),
        ("lags=(31, 8)", "rising order"),
        ("learning_rates=(0.0,)", r"learning_rates was given \(0\.0,\)"),
        ("arms=('artbp(32, alpha=4)',)", "less than an episode"),
        ("arms=('artbp(8, alpha=2)',)", "alpha"),
    ],
    "phase": [
        ("num_seeds=1", "num_seeds was given 1"),
        ("arms=('tbptt(16)', 'artbp(16, alpha=3)')", "more than 3"),
        ("arms=('tbptt(16)',)", "two or more of tbptt, artbp, unbiased_tbptt"),
        (
            """arms=('artbp(16, alpha=4)', 'tbptt(16, segment_start="initial")')""",
            "Expected segment_start=.carried",
        ),
        ("arms=('tbptt(16)', 'uoro(8)')", "two or more of tbptt, artbp, unbiased_tbptt"),
        ("arms=('tbptt(61)', 'unbiased_tbptt(45, hazard=0.75)')", "mode='reforward' only"),
        ("memories=(2.0, 1.0)", "the least and the most"),
        ("trained_batches=()", "trained_batches is empty"),
        ("trained_memories=(0.0,)", "expected numbers above 0"),
        ("first_rate=0.0", "the smaller one first"),
        ("later_power=0.0", r"later_power was given 0\.0"),
        ("noise=-1.0", r"noise was given -1\.0: expected at least 0"),
    ],
    "recurrent_ppo": [
        ("num_minibatches=3", "a divisor of num_rows = 64"),
        ("arms=('uoro(8)',)", "expected one of tbptt, bptt, artbp"),
        ("arms=('bptt(32)',)", "without a length"),
        ("arms=('tbptt(64)',)", "below rollout_length = 64"),
        ("num_seeds=1", "a spread needs at least 2"),
        ("num_iterations=3", "at least 4"),
        ("discount=1.5", "at most 1"),
        ("learning_rates=()", "learning_rates is empty"),
    ],
    "stability": [
        ("arms=('uncompensated(20, alpha=4)',)", "expected bptt, tbptt or artbp"),
        ("arms=('tbptt(20, draw_offset=True)',)", "Expected draw_offset=False"),
        ("arms=('bptt(100)',)", "full BPTT over 100 steps needs sequences of as many"),
        ("spectral_radii=()", "spectral_radii is empty"),
        ("spectral_radii=(1.5, 0.8)", "rising order"),
        ("learning_rates=(0.0, 0.1)", "expected numbers above 0"),
        ("clip_norm=0.0", r"clip_norm was given 0\.0"),
        ("num_seeds=0", "num_seeds was given 0"),
        ("num_sequences=1", "expected at least 2"),
        ("bound_points=1", "both ends"),
        ("arms=('tbptt(201)',)", "2 to sequence_length"),
        ("clipped_arm='uoro(20)'", "2 to sequence_length"),
        ("trained=('tbptt(15)',)", "divisor"),
        ("trained=('artbp(20, alpha=2.5)',)", r"alpha = 2\.5"),
        ("trained=()", "trained is empty"),
        ("trained=('bptt(200) clipped by hand',)", "by norm or by value"),
        ("num_tuning_runs=0", "num_tuning_runs was given 0"),
        ("figure_radius=1.1", "one of spectral_radii"),
        ("seed=-1", "seed is -1"),
    ],
    "target_propagation": [
        ("arms=('tbptt(5)',)", "a number of steps that divides 32"),
        ("arms=('bptt(16)',)", "full BPTT over 16 steps needs sequences of as many"),
        ("arms=('target_propagation(4, 1, 2)',)", "num_segments=1"),
        ("lag=32", "lag is 32: expected less than sequence_length"),
        ("penalties=(0.0,)", r"penalties was given \(0\.0,\)"),
    ],
    "teacher_forcing": [
        ("free_steps=()", "free_steps is empty"),
        ("free_steps=(-1,)", "free_steps was given -1"),
        ("free_steps=(5, 5)", "name each once"),
        ("arms=('chess(20)',)", "'chess', which is unknown"),
        ("arms=('bptt',)", "expected one with a length"),
        ("arms=('tbptt_1_rmsprop',)", "an optimiser of its own"),
        ("num_tuning_runs=0", "num_tuning_runs was given 0"),
        ("learning_rates=(0.0,)", "expected numbers above 0"),
        ("num_seeds=0", "num_seeds was given 0"),
        ("arms=('tbptt(0)',)", "length=0"),
        ("arms=('artbp(20, alpha=3)',)", "more than 3"),
        ("threshold=-1.0", "threshold"),
        ("seed=-1", "seed is -1"),
    ],
}


def study(experiment):
    """What has `default_config` and `check_config`."""
    module = importlib.import_module(f"experiments.{experiment}.__main__")
    config = importlib.import_module(f"experiments.{experiment}.config")
    return getattr(module, "STUDY", config)


def load(experiment, file="default.py", overrides=()):
    return load_config(study(experiment).default_config(), CONFIGS / experiment / file, overrides)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`run(experiment, *overrides, tensorboard=False)`, which fails where the run would begin."""

    def begin(*arguments, **options):
        pytest.fail("It was not refused.")

    def run(experiment, *overrides, tensorboard=False):
        module = importlib.import_module(f"experiments.{experiment}.__main__")
        main = module.STUDY.main if hasattr(module, "STUDY") else module.main
        monkeypatch.setattr(cli, "open_workdir", begin)
        command_line = cli.CommandLine(tmp_path / "run", False, tensorboard, False)
        main(load(experiment, overrides=overrides), command_line)

    yield run
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("experiment", "override", "words"),
    [(experiment, *case) for experiment, cases in BAD.items() for case in cases],
)
def test_bad_configurations_are_refused_before_anything_is_written(
    experiment, override, words, run
):
    with pytest.raises(ConfigError, match=words):
        run(experiment, override)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_tensorboard_is_refused(experiment, run):
    with pytest.raises(ExperimentError, match=r"--tensorboard.*metrics\.jsonl"):
        run(experiment, tensorboard=True)


@pytest.mark.parametrize(
    ("experiment", "file"),
    [(name, path.name) for name in EXPERIMENTS for path in sorted((CONFIGS / name).glob("*.py"))],
)
def test_every_config_file_is_valid(experiment, file):
    study(experiment).check_config(load(experiment, file))
