"""A script's way in and out, seen from outside: what it prints, where, and with which exit code it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common import console
from common.config import Settings
from common.connection import connect
from common.errors import BadMessage, ExitCode
from common.messages import MAX_BODY_BYTES

Done = subprocess.CompletedProcess[bytes]
TIMEOUT = 60


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], list[str]]:
    """Makes a script whose main() has the given body; returns the command that runs it."""

    def write(body: str) -> list[str]:
        path = tmp_path / "script.py"
        path.write_text(
            '"""Shows something.\n\nscript.py [WORD ...]\n"""\n'
            "import sys, time\n"
            "from common import console\n"
            "from common.errors import Failure\n"
            f"def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
            'if __name__ == "__main__":\n    console.run(main)\n',
            encoding="utf-8",
        )
        return [sys.executable, str(path)]

    return write


def run(command: list[str], stdin: bytes | None = None, **environ: str) -> Done:
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        command, capture_output=True, timeout=TIMEOUT, check=False, env={**os.environ, **environ}, **given
    )


WORDS = """
    parser = console.parser(__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--number", type=console.whole(1, 9))
    parser.add_argument("--wait", type=console.seconds)
    console.say(console.body_text(parser.parse_args().words, "default"))
"""


def test_words_are_one_text(script: Callable[[str], list[str]]) -> None:
    command = script(WORDS)
    assert run(command).stdout == b"default\n"
    assert run([*command, "two", "words ✓"]).stdout.decode() == "two words ✓\n"
    assert run([*command, "--", "--number"]).stdout == b"--number\n"


def test_standard_input_is_a_text(script: Callable[[str], list[str]]) -> None:
    command = [*script(WORDS), "-"]
    assert run(command, "é\n".encode()).stdout.decode() == "é\n"
    assert run(command, b"one\ntwo\n").stdout == b"one\\ntwo\n"


def refused(done: Done) -> str:
    """Standard error of a script that refuses: one line, nothing printed, no traceback."""
    text = done.stderr.decode()
    assert done.stdout == b""
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize(
    ("words", "stdin", "told"),
    [
        ([""], None, "empty"),
        (["-"], b"", "empty"),
        (["-"], b"\n", "empty"),
        ([b"caf\xe9"], None, "not valid UTF-8"),
        (["-"], b"caf\xe9", "not UTF-8"),
        (["-"], b"x" * (MAX_BODY_BYTES + 1), "the text has 16,777,217 bytes, more than the 16,777,216"),
        (["-"], b"x" * (17 * 1024 * 1024), "standard input has more than the 16,777,216 bytes"),
        # What is read of it ends in the middle of a letter.
        (["-"], "xé".encode() * (9 * 1024 * 1024), "standard input has more than the 16,777,216 bytes"),
    ],
    ids=["empty", "no input", "an empty line", "Latin-1", "Latin-1 input", "too large", "17 MiB", "27 MiB"],
)
def test_a_body_that_cannot_be_sent(
    script: Callable[[str], list[str]], words: list[str], stdin: bytes | None, told: str
) -> None:
    done = run([*script(WORDS), *words], stdin)
    assert told in refused(done)
    assert done.returncode == ExitCode.DATA


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_largest_body_is_taken(script: Callable[[str], list[str]], end: bytes) -> None:
    done = run([*script(WORDS), "-"], b"x" * MAX_BODY_BYTES + end)
    assert (done.returncode, len(done.stdout)) == (0, MAX_BODY_BYTES + 1)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_utf_8_is_understood_whatever_the_locale(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = script("""
        from pathlib import Path
        from common.config import Settings
        parser = console.parser(__doc__)
        parser.add_argument("words", nargs="*")
        parser.add_argument("--key")
        parser.add_argument("--file", type=Path)
        arguments = parser.parse_args()
        arguments.file.touch()
        texts = [console.body_text(arguments.words), arguments.key, Settings.load().password]
        sys.stdout.buffer.write(" ".join(texts).encode())
    """)
    words = ["é", "✓", "--key", "ü", "--file", str(tmp_path / "größe")]
    done = run([*command, *words], None, **ASCII, RABBITMQ_PASSWORD="ö")
    assert (done.stdout.decode(), done.stderr) == ("é ✓ ü ö", b"")
    assert (tmp_path / "größe").exists()


@pytest.mark.parametrize("environ", [{}, ASCII], ids=["UTF-8", "ASCII"])
def test_no_argument_may_be_anything_else(script: Callable[[str], list[str]], environ: dict[str, str]) -> None:
    done = run([*script(WORDS), "--wait", b"\xe9"], None, **environ)  # type: ignore[list-item]
    assert refused(done) == "error: the argument '\\udce9' is not valid UTF-8; send text in UTF-8\n"
    assert done.returncode == ExitCode.DATA


def test_standard_input_that_is_closed(script: Callable[[str], list[str]]) -> None:
    done = run(["sh", "-c", 'exec "$0" "$@" <&-', *script(WORDS), "-"])
    assert "closed" in refused(done)
    assert done.returncode == ExitCode.DATA


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nonsense"], "--nonsense"),
        (["--numb", "3"], "--numb"),
        (["--number", "0"], "must be a whole number from 1 to 9, not '0'"),
        (["--number", "1.5"], "must be a whole number from 1 to 9, not '1.5'"),
        (["--number"], "expected one argument"),
        (["--wait", "nan"], "must be a number of seconds from 0 to 86400, not 'nan'"),
        (["--wait", "-1"], "must be a number of seconds"),
    ],
)
def test_an_argument_that_cannot_be_used(script: Callable[[str], list[str]], arguments: list[str], told: str) -> None:
    done = run([*script(WORDS), *arguments])
    assert told in refused(done)
    assert "script.py --help" in done.stderr.decode()
    assert done.returncode == ExitCode.USAGE


def test_help_shows_the_docstring(script: Callable[[str], list[str]]) -> None:
    done = run([*script(WORDS), "--help"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Shows something.\n\nscript.py [WORD ...]" in done.stdout


def test_a_failure_is_one_line_and_its_own_exit_code(script: Callable[[str], list[str]]) -> None:
    done = run(script('console.say("before")\nf = Failure("no\\nluck")\nf.exit_code = 73\nraise f'))
    assert (done.returncode, done.stdout, done.stderr) == (73, b"before\n", b"error: no\\nluck\n")


def test_a_bug_keeps_its_traceback(script: Callable[[str], list[str]]) -> None:
    """What a reader cannot mend must not look like something that a reader can."""
    done = run(script("1 / 0"))
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr


def test_a_library_that_is_interrupted_may_complain(script: Callable[[str], list[str]]) -> None:
    body = """
        try:
            raise KeyboardInterrupt
        finally:
            raise AssertionError("not in this state")
    """
    done = run(script(body))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_error_of_pika_that_escapes_is_explained(script: Callable[[str], list[str]]) -> None:
    done = run(
        script("from pika.exceptions import ChannelClosedByBroker\nraise ChannelClosedByBroker(404, 'no queue')")
    )
    assert "404 no queue" in refused(done)
    assert done.returncode == ExitCode.PROTOCOL


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_it_leaves_without_a_word(script: Callable[[str], list[str]], signum: int) -> None:
    command = script('console.say("up")\ntime.sleep(60)')
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        # The line comes at once although the output is a pipe: that is half of this test.
        assert process.stdout.readline() == b"up\n"
        began = time.monotonic()
        process.send_signal(signum)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert time.monotonic() - began < 10


def test_control_characters_do_not_reach_the_terminal(script: Callable[[str], list[str]]) -> None:
    done = run(script(r'console.say("a\x1b[2J\r\x07\x9b\u202eé✓ \ud800")' + "\n" + r'console.warn("\x1b[31m")'))
    assert done.stdout.decode() == "a\\x1b[2J\\r\\x07\\x9b\\u202eé✓ \\ud800\n"
    assert done.stderr == b" [!] \\x1b[31m\n"
    assert done.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_is_no_reason_to_fail(script: Callable[[str], list[str]], encoding: str) -> None:
    done = run(script('console.say("hé ✓")\nraise Failure("é ✓")'), PYTHONIOENCODING=encoding)
    assert done.returncode == ExitCode.UNAVAILABLE
    expected = "hé ✓\n".encode(encoding, "backslashreplace")
    assert (done.stdout, done.stderr) == (expected, b"error: " + expected[1:].replace(b"h", b""))


def test_whoever_reads_the_output_may_leave(script: Callable[[str], list[str]]) -> None:
    command = script("while True: console.say('line')")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == b""


def test_output_that_cannot_be_written_is_told(script: Callable[[str], list[str]]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here, which is always full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            script("console.say('line')"), stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False
        )
    assert done.returncode == ExitCode.OUTPUT
    assert done.stderr.decode() == "error: the output cannot be written: No space left on device\n"


def test_closed_outputs_are_no_reason_to_fail(script: Callable[[str], list[str]]) -> None:
    command = script("console.say('line')\nconsole.warn('careful')")
    assert (
        subprocess.run(["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *command], timeout=TIMEOUT, check=False).returncode == 0
    )


def test_a_reader_who_leaves_costs_no_message(
    script: Callable[[str], list[str]], settings: Settings, environ: dict[str, str]
) -> None:
    """As in `python receive.py | head -1`: what could not be shown goes back to its queue, not to the dead letters."""
    command = script("""
        from common.config import Settings
        from robust_pika import Outcome, consume
        def declare(channel):
            return channel.queue_declare("tests.q", passive=True).method.queue
        def show(message):
            console.say(message.text())
            return Outcome.ACK
        consume("tests.console", Settings.load(), declare, show)
    """)
    with connect("tests.console", settings) as connection:
        channel = connection.channel()
        channel.queue_declare("tests.dead", durable=True)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "tests.dead"}
        channel.queue_declare("tests.q", durable=True, arguments=arguments)
        channel.confirm_delivery()
        channel.basic_publish("", "tests.q", b"first", mandatory=True)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"first\n"
            process.stdout.close()
            for number in range(9):
                channel.basic_publish("", "tests.q", b"%d" % number, mandatory=True)
            assert process.wait(TIMEOUT) == 0
            assert process.stderr.read() == b""
        ready = [channel.queue_declare(name, passive=True).method.message_count for name in ("tests.q", "tests.dead")]
    assert ready == [9, 0]


# In this process


def test_a_text_is_checked_before_it_is_used() -> None:
    assert console.body_text(["a", "b"]) == "a b"
    assert console.body_text([], "default") == "default"
    with pytest.raises(BadMessage, match="empty"):
        console.body_text([])
