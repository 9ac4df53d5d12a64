"""Settings from a file, the environment and flags."""

from pathlib import Path

import pytest
from lookalike_server.config import Settings
from lookalike_server.errors import ConfigInvalid
from lookalike_server.loading import load_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "lookalike.toml"


def problems(**sources: object) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(**({"environ": {}} | sources))  # type: ignore[arg-type]
    return caught.value.message.splitlines()


def test_flags_win_over_the_environment_and_that_over_the_file(toml: Path) -> None:
    toml.write_text("max_k = 1\nmax_batch = 1\nqueue_images = 1\n")
    environ = {"LOOKALIKE_MAX_K": "2", "LOOKALIKE_MAX_BATCH": "2"}
    settings = load_settings({"max_k": 3, "data": None}, toml, environ)
    assert (settings.queue_images, settings.max_batch, settings.max_k) == (1, 2, 3)


def test_paths_of_a_file_are_relative_to_it(toml: Path) -> None:
    toml.write_text(
        "data = 'store'\n[recipes.mine]\nbackbone = 'resnet18'\n"
        "taps = [{node = 'layer4'}]\nweights = 'w.pt'\nwhitening = 'fitted.safetensors'\n"
    )
    settings = load_settings(config=toml, environ={})
    assert settings.data == toml.parent / "store"
    assert settings.recipes["mine"].weights == toml.parent / "w.pt"
    assert settings.recipes["mine"].whitening == str(toml.parent / "fitted.safetensors")


def test_a_fit_that_comes_with_the_package_is_named(toml: Path) -> None:
    toml.write_text(
        "[recipes.mine]\nbackbone = 'efficientnet_lite0'\n"
        "taps = [{node = 'head'}]\nwhitening = 'near_duplicate'\n"
    )
    assert load_settings(config=toml, environ={}).recipes["mine"].whitening == "near_duplicate"


def test_a_recipe_is_a_table(toml: Path) -> None:
    toml.write_text(
        "[recipes.mine]\nbackbone = 'resnet18'\ninput_size = [128, 96]\nresize = 'crop'\n"
        "taps = [{node = 'layer3', pooling = 'avg'}, {node = 'layer4', p = 4.0}]\n"
    )
    mine = load_settings(config=toml, environ={}).recipes["mine"]
    assert mine.input_size == (128, 96)
    assert [(tap.node, tap.pooling, tap.p) for tap in mine.taps] == [
        ("layer3", "avg", 3),
        ("layer4", "gem", 4),
    ]


def test_lists_in_the_environment_have_commas() -> None:
    assert load_settings(environ={"LOOKALIKE_SERVED_RECIPES": "b, a"}).served_recipes == ("b", "a")


def test_every_problem_is_one_line_that_begins_with_its_origin(toml: Path) -> None:
    toml.write_text("max_q = 3\nmax_batch = 'many'\n")
    lines = problems(config=toml, environ={"LOOKALIKE_MAX_K": "0"}, flags={"address": "nowhere"})
    assert len(lines) == 4
    assert f"{toml}: max_q: no such setting. Did you mean 'max_k', 'max_calls', 'max_batch'?" in lines
    assert any(line.startswith(f"{toml}: max_batch: should be a valid integer") for line in lines)
    assert any(line.startswith("LOOKALIKE_MAX_K: should be greater than or equal to 1") for line in lines)
    assert "--address: must be HOST:PORT, as 127.0.0.1:50051, or unix:PATH, not 'nowhere'." in lines


def test_an_unknown_key_of_a_recipe_is_answered_with_the_nearest(toml: Path) -> None:
    toml.write_text("[recipes.mine]\nbackbone = 'x'\ntaps = [{node = 'y', poling = 'avg'}]\nwieghts = 'z'\n")
    lines = problems(config=toml)
    assert f"{toml}: recipes.mine.wieghts: no such setting. Did you mean 'weights'?" in lines
    assert f"{toml}: recipes.mine.taps.0.poling: no such setting. Did you mean 'pooling'?" in lines


def test_a_missing_key_is_named(toml: Path) -> None:
    toml.write_text("[recipes.mine]\ntaps = []\n")
    assert problems(config=toml) == [f"{toml}: recipes.mine.backbone: is missing."]


def test_a_slip_in_a_variable_is_told() -> None:
    line = "LOOKALIKE_ADRESS: no such setting. Did you mean LOOKALIKE_ADDRESS?"
    assert problems(environ={"LOOKALIKE_ADRESS": "x"}) == [line]


def test_variables_of_others_are_left_alone() -> None:
    environ = {"LOOKALIKE_SERVER": "localhost:1", "LOOKALIKE_PORT_50051_TCP": "tcp://10.0.0.1:50051"}
    assert load_settings(environ=environ) == Settings()


@pytest.mark.parametrize("text", ["max_k = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(toml: Path, text: str | bytes) -> None:
    toml.write_bytes(text.encode() if isinstance(text, str) else text)
    (line,) = problems(config=toml)
    assert line.startswith(f"{toml}: ")


def test_a_file_that_is_not_there_is_named(toml: Path) -> None:
    assert problems(config=toml) == [f"{toml}: there is no such file."]


@pytest.mark.parametrize("address", ["[::]:0", "0.0.0.0:50051", "localhost:1", "unix:/tmp/x"])
def test_addresses_that_can_be_listened_on(address: str) -> None:
    assert Settings(address=address).address == address


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", ":1", "a:70000", "a:-1", "unix:"])
def test_addresses_that_cannot(address: str) -> None:
    (line,) = problems(flags={"address": address})
    assert line.startswith("--address: ")
