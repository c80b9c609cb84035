import ml_collections
import pytest

from experiments.common.config import (
    check_seed,
    describe,
    load_config,
)
from experiments.common.errors import ConfigError


def defaults():
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.name = "tbptt"
    config.sizes = (1, 2)
    config.shuffle = False
    config.optimizer = ml_collections.ConfigDict(
        {"learning_rate": 1e-3, "clip_norm": None, "options": ml_collections.ConfigDict()}
    )
    return config


def config_file(tmp_path, body):
    path = tmp_path / "config.py"
    path.write_text(f"import ml_collections\n\ndef get_config():\n{body}\n")
    return path


def test_defaults_then_file_then_overrides(tmp_path):
    path = config_file(
        tmp_path,
        "    config = ml_collections.ConfigDict({'seed': 1, 'name': 'artbp'})\n"
        "    config.optimizer = ml_collections.ConfigDict({'learning_rate': 1})\n"
        "    return config",
    )
    overrides = ["seed=3", "optimizer.clip_norm=0.5", "sizes=[3, 4]", "optimizer.options.b2=0.9"]
    config = load_config(defaults(), path, overrides)
    assert config.to_dict() == {
        "seed": 3,
        "name": "artbp",
        "sizes": (3, 4),
        "shuffle": False,
        "optimizer": {"learning_rate": 1.0, "clip_norm": 0.5, "options": {"b2": 0.9}},
    }
    assert isinstance(config.optimizer.learning_rate, float)


def test_a_file_may_name_the_fields_of_sections_with_dots(tmp_path):
    body = "    return {'optimizer': {'options': {'b1': 0.8}}, 'optimizer.options.b2': 0.9}"
    config = load_config(defaults(), config_file(tmp_path, body))
    assert config.optimizer.options.to_dict() == {"b1": 0.8, "b2": 0.9}
    misspelt = config_file(tmp_path, "    return {'optimizer.clip_nrm': 1.0}")
    with pytest.raises(ConfigError, match=r"'optimizer\.clip_nrm'\. Did you mean optimizer\.clip"):
        load_config(defaults(), misspelt)


def test_an_override_may_have_another_type_than_the_file_where_the_default_is_none(tmp_path):
    file = config_file(tmp_path, "    return {'optimizer': {'clip_norm': 1}, 'seed': 2}")
    assert load_config(defaults(), file, ["optimizer.clip_norm=None"]).optimizer.clip_norm is None
    assert load_config(defaults(), file, ["optimizer.clip_norm=0.5"]).optimizer.clip_norm == 0.5
    with pytest.raises(ConfigError, match="seed was given None"):
        load_config(defaults(), file, ["seed=None"])


def test_an_empty_section_takes_any_fields_one_after_the_other():
    overrides = ["optimizer.options.b1=0.8", "optimizer.options.b2=0.9"]
    config = load_config(defaults(), overrides=overrides)
    assert config.optimizer.options.to_dict() == {"b1": 0.8, "b2": 0.9}


def test_defaults_are_not_changed_and_the_result_is_frozen():
    given = defaults()
    config = load_config(given, overrides=["seed=3", "optimizer.options.b2=0.9"])
    assert given.to_dict() == defaults().to_dict()
    with pytest.raises(AttributeError):
        config.seed = 4


def test_a_plain_dict_and_plain_strings_will_do(tmp_path):
    path = config_file(tmp_path, "    return {'optimizer': {'learning_rate': 0.1}}")
    config = load_config(defaults(), path, ["name=uncompensated"])
    assert (config.optimizer.learning_rate, config.name) == (0.1, "uncompensated")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sed=1", r"unknown config field 'sed'\. Did you mean seed\?"),
        (
            "optimizer.lerning_rate=1.0",
            r"'optimizer\.lerning_rate'\. Did you mean optimizer\.learning_rate\?",
        ),
        ("seed=abc", "seed was given 'abc'"),
        ("optimizer=3", "optimizer is a section with the fields clip_norm, learning_rate, options"),
        ("optimizer.options=3", r"optimizer\.options is a section of fields, and was given 3"),
        ("sizes=({},)", "holds a dict within a list"),
        ("seed=1.5", "expected int"),
        ("seed=None", "seed was given None"),
        ("optimizer.learning_rate=None", "expected float"),
        ("shuffle=1", "expected bool"),
        ("optimizer=adam", "is a section"),
        ("seed.deep=1", "expected int"),
        ("seed", "expected --set field=value"),
    ],
)
def test_bad_overrides(override, words):
    with pytest.raises(ConfigError, match=words):
        load_config(defaults(), overrides=[override])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    return {'sed': 1}", r"config\.py: unknown config field 'sed'"),
        ("    return {'optimizer': {'rate': 1}}", r"'optimizer\.rate'"),
        ("    return {'seed': }", "not valid Python"),
        ("    return None", "returned None: expected a ConfigDict"),
        ("    return {}['a']", "fails: KeyError: 'a'"),
        ("    return {}\nimport nothing_of_that_name", "fails: ModuleNotFoundError"),
    ],
)
def test_bad_files(tmp_path, body, words):
    with pytest.raises(ConfigError, match=words):
        load_config(defaults(), config_file(tmp_path, body))


def test_missing_files_and_functions(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(defaults(), tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="get_config"):
        load_config(defaults(), tmp_path / "empty.py")


def test_fields_as_set_takes_them():
    assert describe(defaults()) == [
        "name=tbptt",
        "optimizer.clip_norm=None",
        "optimizer.learning_rate=0.001",
        "optimizer.options.ANY=value",
        "seed=0",
        "shuffle=False",
        "sizes=(1, 2)",
    ]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range(seed):
    check_seed("seed", 2**32 - 1)
    with pytest.raises(ConfigError, match=f"seed is {seed}"):
        check_seed("seed", seed)
