"""Scenarios that happen as they are written, and every way in which one does not: it must go red, and say why.

No broker is needed here: the programs are Python one-liners.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.process import wait_until
from tour.player import Ended, Event, NotHere, Player, Pressed, Printed, Section, Skipped, Typed
from tour.report import Mismatch
from tour.scenario import parse
from tour.terminal import CommandError

PROGRAMS = {
    # Prints its arguments, a line each.
    "say.py": "import sys; print(*sys.argv[1:], sep='\\n')",
    # Says what lies in the file "letters", line by line, until Ctrl-C; "seen" is how far it is.
    "worker.py": """
        import os, signal, sys, time
        # No KeyboardInterrupt: raised while a file is being thrown away, it would be lost.
        stop = []
        signal.signal(signal.SIGINT, lambda *_: stop.append(True))
        open('pid', 'w').write(str(os.getpid()))
        print(' [*] Waiting')
        done = 0
        while not stop:
            lines = open('letters').read().splitlines()
            for line in lines[done:]:
                print(f' [x] Received {line!r}')
                open('seen', 'a').write(line)
                if line == 'crash':
                    sys.exit(3)
                if line == 'end':
                    sys.exit(0)
            done = len(lines)
            time.sleep(0.01)
        if '--polite' in sys.argv:
            print('Bye')
        sys.exit(5 if '--rude' in sys.argv else 0)
    """,
    "send.py": "import sys; open('letters', 'a').write(sys.argv[1] + '\\n'); print(f' [x] Sent {sys.argv[1]!r}')",
    # Returns when the worker has seen a letter, or has ended.
    "wait_seen.py": "import os, time\nwhile not os.path.exists('seen'): time.sleep(0.01)",
    "wait_ended.py": """
        import os, time
        pid = int(open('pid').read())
        try:
            while True:
                os.kill(pid, 0)
                time.sleep(0.01)
        except ProcessLookupError:
            time.sleep(0.3)
    """,
    # Says its process id, and sleeps until it is asked to stop.
    "announce.py": """
        import os, signal, time
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        open('pid', 'w').write(str(os.getpid()))
        print(f' [*] Worker {os.getpid()} waits')
        while not stop:
            time.sleep(0.01)
        print(f' [*] Worker {os.getpid()} stops')
    """,
    "fail.py": "import sys; sys.exit('error: no')",
    "incomplete.py": "import sys; print('error: rstream is not installed', file=sys.stderr); sys.exit(72)",
    "old.py": "import sys; print('error: RabbitMQ 4.0 is needed', file=sys.stderr); sys.exit(79)",
    "stubborn.py": """
        import signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print('ready')
        time.sleep(60)
    """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")
    (tmp_path / "letters").touch()
    return tmp_path


@contextmanager
def player(folder: Path, markdown: str, *, own_broker: bool = False) -> Iterator[Player]:
    """A player of ``markdown``, whose blocks are fenced by three tildes."""
    text = textwrap.dedent(markdown).strip()
    with Player(parse(text, "work_queue/README.md"), os.environ, folder=folder, own_broker=own_broker) as played:
        yield played
    assert descendants(folder) == []


def block(lines: str, terminal: str = "1", words: str = "") -> str:
    """A block that happens in ``terminal``."""
    return f"~~~console {words}\n# Terminal {terminal}\n{lines}\n~~~\n"


def descendants(folder: Path) -> list[str]:
    """The children of this process that still run in ``folder``."""
    return [
        " ".join(child.cmdline())
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and child.cwd() == str(folder)
    ]


def played(folder: Path, markdown: str, *, own_broker: bool = False) -> list[Event]:
    with player(folder, markdown, own_broker=own_broker) as own:
        return list(own.events())


def red(folder: Path, markdown: str) -> str:
    """The report of a scenario that must fail."""
    with pytest.raises(Mismatch) as caught:
        played(folder, markdown)
    assert str(caught.value) == caught.value.report.splitlines()[0]
    return caught.value.report


# What happens as it is written


def test_two_terminals(folder: Path) -> None:
    events = played(
        folder,
        """
        # Work queue
        ## Try it
        ~~~console
        # Terminal 1: worker
        $ python worker.py
         [*] Waiting
        ~~~
        ~~~console
        # Terminal 2
        $ python send.py one
         [x] Sent 'one'
        ~~~
        ~~~console
        # Terminal 1: worker
         [x] Received 'one'
        ^C
        ~~~
        """,
    )
    assert [event for event in events if not isinstance(event, Printed)] == [
        Section("Try it"),
        Typed("1 worker", "python worker.py"),
        Typed("2", "python send.py one"),
        Ended("2", 0),
        Pressed("1 worker"),
        Ended("1 worker", 0),
    ]
    assert [event.line for event in events if isinstance(event, Printed) and event.terminal == "1 worker"] == [
        " [*] Waiting",
        " [x] Received 'one'",
    ]


@pytest.mark.parametrize(
    "markdown",
    [
        pytest.param(block("$ python say.py a b c\na\n…"), id="anything at the end"),
        pytest.param(block("$ python say.py a b c\n…\nc"), id="anything at the beginning"),
        pytest.param(block("$ python say.py a\n…\na\n…"), id="anything may be nothing"),
        pytest.param(block("$ python say.py a b\na\n\nb"), id="blank lines in the README"),
        pytest.param(block("$ python say.py a '' b\na\nb"), id="blank lines in the output"),
        pytest.param(block("$ python say.py a\na\n$ python say.py b\nb"), id="several commands"),
        pytest.param(block("$ python fail.py\nerror: no\n(exit code 1)\n$ python say.py b\nb"), id="exit code"),
        pytest.param(block("$ python say.py b a | sort\na\nb"), id="a pipe"),
        pytest.param(block("$ python worker.py\n [*] Waiting\n^C"), id="ctrl-c"),
        pytest.param(block("$ python worker.py --polite\n [*] Waiting\n^C\nBye"), id="words after ctrl-c"),
        pytest.param(block("$ python worker.py --rude\n [*] Waiting\n^C\n(exit code 5)"), id="rude"),
        pytest.param(block("$ python say.py a\na\n$ python worker.py\n [*] Waiting\n^C"), id="one after another"),
        pytest.param(block("$ python say.py a\na\n(exit code 0)"), id="an exit code of 0"),
        pytest.param(block("$ python say.py a\na") + block("$ python say.py b\nb"), id="one block after another"),
        pytest.param(
            block("$ python worker.py --polite\n [*] Waiting\n^C", "1: w")
            + block("$ python say.py a\na", "2")
            + block("Bye", "1"),
            id="its last words later",
        ),
        pytest.param(
            block("$ python fail.py") + block("$ python say.py a\na", "2") + block("error: no\n(exit code 1)"),
            id="its end later",
        ),
        pytest.param(
            block("$ python worker.py\n…")
            + block("$ python send.py a\n…\n$ python send.py b\n…", "2")
            + block(" [x] Received 'b'\n^C"),
            id="anything up to the next block",
        ),
    ],
)
def test_green(folder: Path, markdown: str) -> None:
    assert played(folder, markdown)


def test_a_section_that_restarts_the_broker_is_played_only_on_request(folder: Path) -> None:
    markdown = """
        # Title
        ~~~console
        # Terminal 2
        $ python say.py before
        before
        ~~~
        ## Restart
        ~~~console own-broker
        # Terminal 2
        $ python say.py restart
        restart
        ~~~
        ~~~console
        # Terminal 2
        $ python say.py more
        more
        ~~~
        ## After
        ~~~console
        # Terminal 2
        $ python say.py after
        after
        ~~~
        """
    events = played(folder, markdown)
    assert [event.line for event in events if isinstance(event, Printed)] == ["before", "after"]
    assert [event.reason for event in events if isinstance(event, Skipped)] == [
        "work_queue/README.md:8: 'Restart' restarts RabbitMQ; it is played only where that disturbs nobody "
        "(TOUR_OWN_BROKER=1)"
    ]
    events = played(folder, markdown, own_broker=True)
    assert [event.line for event in events if isinstance(event, Printed)] == ["before", "restart", "more", "after"]


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (None, ["before", "new", "more", "after"]),
        ((3, 11, 0), ["before", "new", "more", "after"]),
        ((3, 10, 8), ["before", "after"]),
    ],
)
def test_what_needs_a_newer_broker_is_skipped(folder: Path, version: tuple[int, ...] | None, lines: list[str]) -> None:
    def say(word: str, words: str = "") -> str:
        return block(f"$ python say.py {word}\n{word}", words=words)

    markdown = f"# A\n\n{say('before')}\n## New\n\n{say('new', 'needs=3.11')}\n{say('more')}\n## B\n\n{say('after')}"
    with Player(parse(markdown, "work_queue/README.md"), os.environ, folder=folder, version=version) as own:
        events = list(own.events())
    assert [event.line for event in events if isinstance(event, Printed)] == lines
    told = [event.reason for event in events if isinstance(event, Skipped)]
    reason = "work_queue/README.md:11: 'New' needs RabbitMQ 3.11 or later; this broker is 3.10.8"
    assert told == ([reason] if len(lines) == 2 else [])


def test_step_by_step(folder: Path) -> None:
    markdown = (
        block("$ python worker.py\n [*] Waiting", "1: w")
        + block("$ python send.py one\n [x] Sent 'one'", "2")
        + block(" [x] Received 'one'\n^C", "1")
    )
    with player(folder, markdown) as own:
        first, second, third = own.scenario.played
        assert list(own.play(first)) == [Typed("1 w", "python worker.py"), Printed("1 w", " [*] Waiting")]
        steps = own.play(second)
        assert next(steps) == Typed("2", "python send.py one")
        assert (folder / "letters").read_text(encoding="utf-8") == ""
        assert Ended("2", 0) in list(steps)
        assert list(own.play(third))[-2:] == [Pressed("1 w"), Ended("1 w", 0)]
        assert own.blocks == 3
        assert list(own.finish()) == []


@pytest.mark.parametrize("words", ["kill -9", "kill -KILL"])
@pytest.mark.parametrize("then", ["", block("$ python say.py again\nagain", "1: worker")])
def test_a_program_that_another_terminal_kills(folder: Path, words: str, then: str) -> None:
    comment = r"<!-- varies: 4711 ~ \d+ -->" + "\n"
    first = comment + block("$ python announce.py\n [*] Worker 4711 waits", "1: worker")
    events = played(folder, first + block(f"$ {words} 4711", "2") + then)
    pid = (folder / "pid").read_text(encoding="utf-8")
    assert Printed("1 worker", f" [*] Worker {pid} waits") in events
    assert Typed("2", f"{words} {pid}") in events
    assert Ended("1 worker", 137) in events
    assert events[-1] == Ended("1 worker", 0 if then else 137) or Ended("2", 0) in events[-2:]


def test_a_program_that_another_terminal_asks_to_stop(folder: Path) -> None:
    comment = r"<!-- varies: 4711 ~ \d+ -->" + "\n"
    first = comment + block("$ python announce.py\n [*] Worker 4711 waits")
    assert Ended("1", 0) in played(folder, first + block("$ kill 4711", "2") + block(" [*] Worker 4711 stops"))
    # It is not killed: what it says, and how it ends, matters.
    report = red(folder, first + block("$ kill 4711", "2"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 printed more than the README says"


def test_what_varies(folder: Path) -> None:
    rate = r"<!-- varies: 1,250 ~ [\d,]+ -->" + "\n" + r"<!-- varies: 0.8 s ~ \d\.\d s -->" + "\n"
    first = rate + block("$ python say.py '9,999 in 1.5 s' '1 in 2.5 s'\n1,250 in 0.8 s\n1,250 in 0.8 s")
    second = block("$ python say.py --rate 1,250 11,250\n--rate\n1,250\n11,250", "2")
    events = played(folder, first + second)
    # What was seen last is what is typed, and what is expected where the comment is not repeated.
    assert Typed("2", "python say.py --rate 1 11,250") in events
    report = red(folder, first + block("$ python say.py 2\n1,250"))
    assert report.splitlines()[0] == "work_queue/README.md:12: terminal 1 printed another line: 1,250"
    report = red(folder, rate + block("$ python say.py '9,999 in 15 s'\n1,250 in 0.8 s"))
    assert report.splitlines()[0] == "work_queue/README.md:6: terminal 1 printed another line: 1,250 in 0.8 s"
    assert report.splitlines()[4:7] == [" $ python say.py '9,999 in 15 s'", "-1,250 in 0.8 s", "+9,999 in 15 s"]


# What does not


def test_another_line(folder: Path) -> None:
    report = red(
        folder,
        """
        Words.

        ~~~console
        # Terminal 2
        $ python say.py first second third
        first
        2nd
        third
        ~~~
        """,
    )
    assert report == textwrap.dedent(
        """\
        work_queue/README.md:7: terminal 2 printed another line: 2nd
        --- work_queue/README.md:3 (expected)
        +++ terminal 2 (seen)
        @@ -1,4 +1,4 @@
         $ python say.py first second third
         first
        -2nd
        +second
         third
        All that the command in terminal 2 printed:
            first
            second
            third"""
    )


def test_another_line_of_a_terminal_with_a_role(folder: Path) -> None:
    report = red(
        folder,
        """
        ~~~console
        # Terminal 1: worker
        $ python worker.py
         [*] Waiting
        ~~~
        ~~~console
        # Terminal 2
        $ python send.py one
         [x] Sent 'one'
        $ python send.py two
         [x] Sent 'two'
        $ python send.py three
         [x] Sent 'three'
        ~~~
        ~~~console
        # Terminal 1: worker
        …
         [x] Received 'one'
         [x] … 'three'
        ^C
        Bye
        ~~~
        """,
    )
    assert report == textwrap.dedent(
        """\
        work_queue/README.md:19: terminal 1 (worker) printed another line:  [x] … 'three'
        --- work_queue/README.md:15 (expected)
        +++ terminal 1 (worker) (seen)
        @@ -1,3 +1,4 @@
         …
          [x] Received 'one'
        + [x] Received 'two'
          [x] … 'three'"""
    )


def test_a_line_that_does_not_come(folder: Path) -> None:
    report = red(
        folder,
        """
        ~~~console within=0.5
        # Terminal 1: worker
        $ python worker.py
         [*] Waiting
         [x] Received 'one'
         [x] Received 'two'
        ^C
        ~~~
        """,
    )
    assert report == textwrap.dedent(
        """\
        work_queue/README.md:5: terminal 1 (worker) did not print this within 0.5 s:  [x] Received 'one'
        --- work_queue/README.md:1 (expected)
        +++ terminal 1 (worker) (seen)
        @@ -1,4 +1,2 @@
         $ python worker.py
          [*] Waiting
        - [x] Received 'one'
        - [x] Received 'two'"""
    )


def test_a_line_that_does_not_come_after_anything(folder: Path) -> None:
    report = red(folder, block("$ python say.py a b\n…\nc"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 ended (exit code 0) without this line: c"
    assert report.splitlines()[4:9] == [" $ python say.py a b", " …", "-c", "+a", "+b"]


def test_more_lines_than_expected(folder: Path) -> None:
    report = red(folder, block("$ python say.py a b\na"))
    assert report.splitlines()[0] == "work_queue/README.md:4: terminal 1 printed more than the README says"
    assert report.splitlines()[4:7] == [" $ python say.py a b", " a", "+b"]


def test_output_where_none_is_expected_although_it_never_ends(folder: Path) -> None:
    begin = time.monotonic()
    report = red(folder, block("$ python stubborn.py"))
    assert report.splitlines()[0] == "work_queue/README.md:3: terminal 1 printed more than the README says"
    assert time.monotonic() - begin < 20


def test_an_exit_code_that_is_not_expected(folder: Path) -> None:
    report = red(folder, block("$ python fail.py\nerror: no"))
    assert report.splitlines()[0] == "work_queue/README.md:4: terminal 1 ended with exit code 1, not 0"
    assert report.splitlines()[4:7] == [" $ python fail.py", " error: no", "+(exit code 1)"]
    report = red(folder, block("$ python fail.py\nerror: no\n(exit code 69)"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 ended with exit code 1, not 69"
    assert report.splitlines()[4:8] == [" $ python fail.py", " error: no", "-(exit code 69)", "+(exit code 1)"]


def test_a_program_that_does_not_return(folder: Path) -> None:
    report = red(folder, block("$ python stubborn.py\nready", words="within=1"))
    told = "did not return within 1 s: end it with ^C in its last block, or with kill in another terminal"
    assert report.splitlines()[0] == f"work_queue/README.md:4: terminal 1 {told}"
    # So with one whose next block does not go on with it.
    report = red(folder, block("$ python stubborn.py\nready", words="within=1") + block("$ python say.py a\na"))
    assert report.splitlines()[0] == f"work_queue/README.md:4: terminal 1 {told}"
    report = red(folder, block("$ python stubborn.py\nready\n^C", "1: a", "within=1"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 (a) did not return within 1 s after ^C"


CRASH = """
    ~~~console
    # Terminal 1: worker
    $ python worker.py
     [*] Waiting
    ~~~
    ~~~console
    # Terminal 2
    $ python send.py {letter}
     [x] Sent '{letter}'
    ~~~
    {then}
    """


@pytest.mark.parametrize(("letter", "code"), [("crash", 3), ("end", 0)])
def test_a_program_that_ends_by_itself(folder: Path, letter: str, code: int) -> None:
    then = f"~~~console\n    # Terminal 1\n     [x] Received '{letter}'\n     [x] Done\n    ~~~"
    report = red(folder, CRASH.format(letter=letter, then=then))
    assert report.splitlines()[0] == (
        f"work_queue/README.md:14: terminal 1 (worker) ended (exit code {code}) without this line:  [x] Done"
    )
    assert (
        f"All that the command in terminal 1 (worker) printed:\n     [*] Waiting\n     [x] Received '{letter}'"
        in report
    )


@pytest.mark.parametrize(("letter", "code"), [("crash", 3), ("end", 0)])
def test_a_program_that_ends_by_itself_before_ctrl_c(folder: Path, letter: str, code: int) -> None:
    then = (
        f"~~~console\n    # Terminal 1\n     [x] Received '{letter}'\n    ~~~\n"
        "    ~~~console\n    # Terminal 2\n    $ python wait_ended.py\n    ~~~\n"
        "    ~~~console\n    # Terminal 1\n    ^C\n    ~~~"
    )
    report = red(folder, CRASH.format(letter=letter, then=then))
    # Nobody sees the key do anything.
    assert report.splitlines()[0] == (
        f"work_queue/README.md:21: terminal 1 (worker) ended (exit code {code}) before ^C"
    )


def test_a_program_that_ends_by_itself_before_it_is_killed(folder: Path) -> None:
    comment = r"<!-- varies: 4711 ~ \d+ -->" + "\n"
    first = comment + block("$ python say.py 999999999\n4711", "1: worker")
    report = red(folder, first + block("$ python say.py a\na\n$ kill -9 4711", "2"))
    told = "terminal 2 cannot do this: kill -9 999999999 (the program has ended)"
    assert report.splitlines()[0] == f"work_queue/README.md:10: {told}"
    assert "Before that, terminal 1 (worker) ended by itself (exit code 0); it printed:\n    999999999" in report


LATER = "~~~console\n    # Terminal 1\n    ^C\n    ~~~"


def test_the_other_terminal_that_ended_is_told(folder: Path) -> None:
    then = "~~~console\n    # Terminal 2\n    $ python wait_ended.py\n    $ python say.py seen\n    expected\n    ~~~"
    report = red(folder, CRASH.format(letter="crash", then=f"{then}\n    {LATER}"))
    assert report.splitlines()[0] == "work_queue/README.md:15: terminal 2 printed another line: expected"
    assert report.splitlines()[-3:] == [
        "Before that, terminal 1 (worker) ended by itself (exit code 3); it printed:",
        "     [*] Waiting",
        "     [x] Received 'crash'",
    ]


def test_lines_that_no_block_tells(folder: Path) -> None:
    then = "~~~console\n    # Terminal 2\n    $ python wait_seen.py\n    ~~~"
    report = red(folder, CRASH.format(letter="one", then=f"{then}\n    {LATER}"))
    assert report.splitlines()[0] == "work_queue/README.md:17: terminal 1 (worker) printed more than the README says"
    assert "+ [x] Received 'one'" in report.splitlines()


def test_words_after_ctrl_c_that_no_block_tells(folder: Path) -> None:
    report = red(folder, block("$ python worker.py --polite\n [*] Waiting\n^C"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 printed more than the README says"
    assert "+Bye" in report.splitlines()


def test_a_bad_end_after_ctrl_c(folder: Path) -> None:
    report = red(folder, block("$ python worker.py --rude\n [*] Waiting\n^C", "1: w"))
    assert report.splitlines()[0] == "work_queue/README.md:5: terminal 1 (w) ended with exit code 5, not 0"


def test_a_command_that_cannot_be_run(folder: Path) -> None:
    with pytest.raises(CommandError) as caught:
        played(folder, block("$ no-such-program at all"))
    assert str(caught.value) == (
        "work_queue/README.md:3: cannot run 'no-such-program at all': No such file or directory"
    )


def test_a_package_that_is_not_installed_is_no_mismatch(folder: Path) -> None:
    with pytest.raises(NotHere) as caught:
        played(folder, block("$ python incomplete.py\nready"))
    assert str(caught.value) == "work_queue/README.md:3: rstream is not installed"


def test_a_broker_that_is_too_old_is_no_mismatch(folder: Path) -> None:
    with pytest.raises(NotHere) as caught:
        played(folder, block("$ python old.py\nready"))
    assert str(caught.value) == "work_queue/README.md:3: RabbitMQ 4.0 is needed"
    # Unless it is what the README says.
    assert played(folder, block("$ python old.py\n…\n(exit code 79)"))


# What is left behind


def test_nothing_is_left_of_a_scenario_that_is_broken_off(folder: Path) -> None:
    markdown = block("$ python stubborn.py\nready") + block("$ sleep 60", "2") + block("^C")
    with player(folder, markdown) as own:
        for event in own.events():
            if event == Typed("2", "sleep 60"):
                break
        wait_until(lambda: len(descendants(folder)) == 1)
    assert descendants(folder) == []
