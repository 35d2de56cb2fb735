"""``.env``: it has the same meaning for us as for Docker Compose, which reads it, too, or it is refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.environment import SettingsError, as_utf8, variables

TIMEOUT = 60


def has_compose() -> bool:
    command = ["docker", "compose", "version"]
    return bool(shutil.which("docker")) and not subprocess.run(command, capture_output=True, check=False).returncode


def read(folder: Path, content: str | bytes) -> dict[str, str]:
    """Our variables of a file with this content."""
    file = folder / ".env"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return variables({}, file)


def value(folder: Path, text: str) -> str:
    return read(folder, f"RABBITMQ_PASSWORD={text}\n")["RABBITMQ_PASSWORD"]


def refused(folder: Path, content: str | bytes) -> str:
    """The line that says why the file is not read."""
    with pytest.raises(SettingsError) as caught:
        read(folder, content)
    line = str(caught.value)
    assert line.startswith(str(folder / ".env"))
    assert line.isprintable()
    assert "hush" not in line
    return line.removeprefix(str(folder / ".env"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hush", "hush"),
        (" hush \t", "hush"),
        ("", ""),
        ("hu sh # a comment about $HOME", "hu sh"),
        ("hu#sh", "hu#sh"),
        ("'hu$sh'", "hu$sh"),
        ("'hu${sh}'", "hu${sh}"),
        ("'hu\\sh' # comment", "hu\\sh"),
        ("' hush '", " hush "),
        ('"hush\'s"', "hush's"),
        ('"it is # hush"', "it is # hush"),
        ("hu'sh\"\\", "hu'sh\"\\"),
        ("hü日", "hü日"),
    ],
)
def test_a_value(tmp_path: Path, text: str, expected: str) -> None:
    assert value(tmp_path, text) == expected
    assert value(tmp_path, f"{text}\r") == expected
    assert read(tmp_path, f"\n  export RABBITMQ_USER = {text}") == {"RABBITMQ_USER": expected}


@pytest.mark.parametrize(
    "text", ["hu$sh", "hu${sh}", "$$hush", '"hu$sh"', '"hu\\nsh"', "'hush\\\\'", "'hush\\''", "#hush", "  # hush"]
)
def test_what_compose_would_take_for_another_value(tmp_path: Path, text: str) -> None:
    line = refused(tmp_path, f"A=b\n\nRABBITMQ_PASSWORD={text}\n")
    assert line.startswith(
        ", line 3: Docker Compose would read another value for RABBITMQ_PASSWORD; write it in single"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("RABBITMQ_PASSWORD=hüsh\n".encode("utf-16"), " is not in UTF-8; save it as UTF-8"),
        ("RABBITMQ_PASSWORD=hüsh\n".encode("latin-1"), " is not in UTF-8; save it as UTF-8"),
        ("RABBITMQ_PASSWORD=hush\n".encode("utf-16-le"), ", line 1, has the control character '\\x00'; save it"),
        (b"\nRABBITMQ_PASSWORD=hu\x1bsh\n", ", line 2, has the control character '\\x1b'; save it"),
        (b"A=b\nRABBITMQ_PASSWORD hush\n", ", line 2, cannot be read; write NAME=value"),
        (b"RABBITMQ_PASSWORD: hush\n", ", line 1, cannot be read; write NAME=value"),
        (b"RABBITMQ_PASSWORD:hush=1\n", ", line 1, cannot be read; write NAME=value"),
        (b"RABBITMQ_PASSWORD='hush\n", ", line 1, cannot be read; write NAME=value"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, content: bytes, told: str) -> None:
    assert refused(tmp_path, content).startswith(told)


def test_a_byte_order_mark_does_not_belong_to_the_first_name(tmp_path: Path) -> None:
    assert read(tmp_path, "RABBITMQ_HOST=ä\n".encode("utf-8-sig")) == {"RABBITMQ_HOST": "ä"}


def test_what_is_no_file_is_no_file(tmp_path: Path) -> None:
    assert variables({}, tmp_path / "none") == variables({}, tmp_path) == {}


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "PATH=$HOME/bin\nPGPASSWORD=a$b\nRABBITMQ_HOST=a\n") == {"RABBITMQ_HOST": "a"}
    assert variables({"PATH": "\udcff", "AMQP_URL": "x"}, None) == {"AMQP_URL": "x"}


def test_a_file_that_we_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    # As a method rather than by its mode: root may read it all the same.
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    (tmp_path / ".env").touch()
    with pytest.raises(SettingsError, match=r"\.env cannot be read: Permission denied$"):
        variables({}, tmp_path / ".env")


def test_a_variable_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^RABBITMQ_USER is not valid UTF-8$"):
        variables({"RABBITMQ_USER": "\udcff"}, None)


def test_what_python_has_read_as_ascii() -> None:
    """As it does with LC_ALL=C: each byte beyond it becomes a surrogate."""
    assert as_utf8("é✓".encode().decode("ascii", "surrogateescape")) == "é✓"
    assert as_utf8("é✓") == "é✓"


@pytest.mark.skipif(not has_compose(), reason="Docker Compose is not installed")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text("ab$#'\"\\={}: \t\u3000ä", max_size=9), min_size=20, max_size=40))
def test_compose_reads_the_same(tmp_path: Path, texts: list[str]) -> None:
    expected = {}
    for number, text in enumerate(texts):
        try:
            expected[f"RABBITMQ_{number}"] = (text, value(tmp_path, text))
        except SettingsError:
            continue
    (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, (text, _) in expected.items()), "utf-8")
    service = {"image": "x", "environment": {name: f"${{{name}}}" for name in expected}}
    (tmp_path / "compose.yml").write_text(json.dumps({"services": {"x": service}}), "utf-8")
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["services"]["x"].get("environment") or {}
    found = {name: text.replace("$$", "$") for name, text in told.items()}
    assert found == {name: text for name, (_, text) in expected.items()}
