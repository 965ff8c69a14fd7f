"""Options follow the schema: files, environment, flags, in that order, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.cli.commands import COMMANDS
from steerward.cli.main import main
from steerward.config import Settings

pytestmark = pytest.mark.usefixtures("clean_environment")


def resolved(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--dry-run"])
    assert done.value.code == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_later_sources_win(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text('port = 1\nhost = "10.0.0.1"\ndtype = "float32"\nmax_items = 5')
    two.write_text("port = 2\nmax_items = 6")
    monkeypatch.setenv("STEERWARD_PORT", "3")
    monkeypatch.setenv("STEERWARD_REWARD_MODEL", "a, b")
    files = ("--config", str(one), "--config", str(two))
    settings = resolved(capsys, "serve", *files, "--host", "::1")
    assert settings["host"] == "::1"
    assert settings["port"] == 3
    assert settings["max_items"] == 6
    assert settings["dtype"] == "float32"
    assert settings["reward_model"] == ["a", "b"]


def test_lists_repeat_and_objects_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    served = resolved(capsys, "serve", "--reward-model", "a", "--reward-model", "b")
    assert served["reward_model"] == ["a", "b"]
    scored = resolved(capsys, "score", "in", "out", "--direction", '{"a": 1}', "--explain")
    assert scored["direction"] == {"a": 1.0}
    assert scored["explain"] is True
    assert (scored["source"], scored["target"]) == ("in", "out")


def test_directions_of_a_file_come_from_every_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [{"a": 1.0, "b": -1.0}, {"b": 2.0}]
    flags = ("--directions", '{"a": 1, "b": -1}', "--directions", '{"b": 2}')
    assert resolved(capsys, "score", "in", "out", *flags)["directions"] == expected
    path = tmp_path / "c.toml"
    path.write_text("directions = [{a = 1, b = -1}, {b = 2}]")
    from_file = resolved(capsys, "score", "in", "out", "--config", str(path))
    assert from_file["directions"] == expected
    monkeypatch.setenv("STEERWARD_DIRECTIONS", json.dumps(expected))
    assert resolved(capsys, "score", "in", "out")["directions"] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--port", "99999"), "--port: Input should be less than or equal to 65535"),
        (("serve", "--dtype", "int3"), "invalid choice: 'int3'"),
        (("serve", "--prot", "1"), "unrecognized arguments: --prot"),
        (("serve", "--reward-model", "a", "--name", "x", "--name", "y"), "2 names for 1 reward"),
        (("score", "in"), "TARGET"),
        (("score", "in", "out", "--direction", "1"), "JSON object"),
        (("score", "in", "out", "--direction", "{"), "not JSON"),
        (("score", "in", "out", "--directions", "{"), "--directions: "),
        (("serve", "--config", "/absent.toml"), "absent.toml"),
        ((), "COMMAND"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_misuse_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert words in refusal(capsys, *arguments)


def test_unknown_key_of_a_file_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("prot = 1")
    assert "unknown setting 'prot'" in refusal(
        capsys, "serve", "--config", str(tmp_path / "c.toml")
    )


def test_secrets_are_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERWARD_API_KEY", "hush")
    assert "hush" not in json.dumps(resolved(capsys, "serve"))


def leaves(commands: Any, *names: str) -> Any:
    for command in commands:
        if command.children:
            yield from leaves(command.children, *names, command.name)
        else:
            yield (*names, command.name), command.schema


@pytest.mark.parametrize(("names", "schema"), list(leaves(COMMANDS)), ids=lambda v: str(v)[:40])
def test_help_explains_every_field(
    capsys: pytest.CaptureFixture[str], names: tuple[str, ...], schema: type[Settings]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([*names, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    for name, field in schema.model_fields.items():
        assert field.description, name
        assert f"--{name.replace('_', '-')}" in text or name.upper() in text


def test_failure_is_one_line_and_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--reward-model", "/absent"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("steerward: there is no folder")
