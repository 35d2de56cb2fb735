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
from tour.scenario import Key, parse
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
        ~~~console worker
        $ python worker.py
         [*] Waiting
        ~~~
        ~~~console
        $ python send.py one
         [x] Sent 'one'
        ~~~
        ~~~console worker
         [x] Received 'one'
        ^C
        ~~~
        """,
    )
    assert [event for event in events if not isinstance(event, Printed)] == [
        Section("Try it"),
        Typed("worker", "python worker.py"),
        Typed("terminal", "python send.py one"),
        Ended("terminal", 0),
        Pressed("worker", Key.INTERRUPT),
        Ended("worker", 0),
    ]
    assert [event.line for event in events if isinstance(event, Printed) and event.terminal == "worker"] == [
        " [*] Waiting",
        " [x] Received 'one'",
    ]


@pytest.mark.parametrize(
    "markdown",
    [
        pytest.param("~~~console\n$ python say.py a b c\na\n…\n~~~", id="anything at the end"),
        pytest.param("~~~console\n$ python say.py a b c\n…\nc\n~~~", id="anything at the beginning"),
        pytest.param("~~~console\n$ python say.py a\n…\na\n…\n~~~", id="anything may be nothing"),
        pytest.param("~~~console\n$ python say.py a b\na\n\nb\n~~~", id="blank lines in the README"),
        pytest.param("~~~console\n$ python say.py a '' b\na\nb\n~~~", id="blank lines in the output"),
        pytest.param("~~~console\n$ python say.py a\na\n$ python say.py b\nb\n~~~", id="several commands"),
        pytest.param(
            "~~~console\n$ python fail.py\nerror: no\n(exit code 1)\n$ python say.py b\nb\n~~~", id="exit code"
        ),
        pytest.param("~~~console\n$ python say.py b a | sort\na\nb\n~~~", id="a pipe"),
        pytest.param("~~~console\n$ python worker.py\n [*] Waiting\n^C\n~~~", id="ctrl-c without a name"),
        pytest.param("~~~console w\n$ python worker.py --polite\n [*] Waiting\n^C\nBye\n~~~", id="words after ctrl-c"),
        pytest.param("~~~console w\n$ python worker.py --rude\n [*] Waiting\n^C\n(exit code 5)\n~~~", id="rude"),
        pytest.param("~~~console w\n$ python worker.py\n [*] Waiting\n^\\\n~~~", id="ctrl-backslash"),
        pytest.param("~~~console w\n$ python worker.py\n [*] Waiting\n~~~", id="ctrl-c at the end, unwritten"),
        pytest.param(
            "~~~console w\n$ python say.py a\na\n$ python worker.py\n [*] Waiting\n~~~", id="one after another"
        ),
        pytest.param("~~~console w\n$ python say.py a\na\n(exit code 0)\n~~~", id="an end by itself"),
        pytest.param(
            "~~~console w\n$ python worker.py --polite\n [*] Waiting\n^C\n…\n~~~\n"
            "~~~console\n$ python say.py a\na\n~~~\n~~~console w\nBye\n~~~",
            id="its last words later",
        ),
        pytest.param(
            "~~~console w\n$ python worker.py\n…\n~~~\n~~~console\n$ python send.py a\n…\n$ python send.py b\n…\n~~~\n"
            "~~~console w\n [x] Received 'b'\n~~~",
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
        $ python say.py before
        before
        ~~~
        ## Restart
        ~~~console own-broker
        $ python say.py restart
        restart
        ~~~
        ~~~console
        $ python say.py more
        more
        ~~~
        ## After
        ~~~console
        $ python say.py after
        after
        ~~~
        """
    events = played(folder, markdown)
    assert [event.line for event in events if isinstance(event, Printed)] == ["before", "after"]
    assert [event.reason for event in events if isinstance(event, Skipped)] == [
        "work_queue/README.md:7: 'Restart' restarts RabbitMQ; it is played only where that disturbs nobody "
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
    block = "~~~console{1}\n$ python say.py {0}\n{0}\n~~~\n"
    markdown = f"# A\n\n{block.format('before', '')}\n## New\n\n"
    markdown += f"{block.format('new', ' needs=3.11')}\n{block.format('more', '')}\n## B\n\n{block.format('after', '')}"
    with Player(parse(markdown, "work_queue/README.md"), os.environ, folder=folder, version=version) as own:
        events = list(own.events())
    assert [event.line for event in events if isinstance(event, Printed)] == lines
    told = [event.reason for event in events if isinstance(event, Skipped)]
    reason = "work_queue/README.md:10: 'New' needs RabbitMQ 3.11 or later; this broker is 3.10.8"
    assert told == ([reason] if len(lines) == 2 else [])


def test_step_by_step(folder: Path) -> None:
    markdown = """
        ~~~console w
        $ python worker.py
         [*] Waiting
        ~~~
        ~~~console
        $ python send.py one
         [x] Sent 'one'
        ~~~
        ~~~console w
         [x] Received 'one'
        ~~~
        """
    with player(folder, markdown) as own:
        first, second, third = own.scenario.played
        assert list(own.play(first)) == [Typed("w", "python worker.py"), Printed("w", " [*] Waiting")]
        steps = own.play(second)
        assert next(steps) == Typed("terminal", "python send.py one")
        assert (folder / "letters").read_text(encoding="utf-8") == ""
        assert Ended("terminal", 0) in list(steps)
        list(own.play(third))
        assert own.blocks == 3
        assert list(own.finish()) == [Pressed("w", Key.INTERRUPT), Ended("w", 0)]


# What does not


def test_another_line(folder: Path) -> None:
    report = red(
        folder,
        """
        Words.

        ~~~console
        $ python say.py first second third
        first
        2nd
        third
        ~~~
        """,
    )
    assert report == textwrap.dedent(
        """\
        work_queue/README.md:6: terminal printed another line: 2nd
        --- work_queue/README.md:3 (expected)
        +++ terminal (seen)
        @@ -1,4 +1,4 @@
         $ python say.py first second third
         first
        -2nd
        +second
         third
        All that the command in terminal printed:
            first
            second
            third"""
    )


def test_another_line_of_a_named_terminal(folder: Path) -> None:
    report = red(
        folder,
        """
        ~~~console worker
        $ python worker.py
         [*] Waiting
        ~~~
        ~~~console
        $ python send.py one
         [x] Sent 'one'
        $ python send.py two
         [x] Sent 'two'
        $ python send.py three
         [x] Sent 'three'
        ~~~
        ~~~console worker
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
        work_queue/README.md:16: worker printed another line:  [x] … 'three'
        --- work_queue/README.md:13 (expected)
        +++ worker (seen)
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
        ~~~console worker within=0.5
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
        work_queue/README.md:4: worker did not print this within 0.5 s:  [x] Received 'one'
        --- work_queue/README.md:1 (expected)
        +++ worker (seen)
        @@ -1,4 +1,2 @@
         $ python worker.py
          [*] Waiting
        - [x] Received 'one'
        - [x] Received 'two'"""
    )


def test_a_line_that_does_not_come_after_anything(folder: Path) -> None:
    report = red(folder, "~~~console\n$ python say.py a b\n…\nc\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:4: terminal ended (exit code 0) without this line: c"
    assert report.splitlines()[4:9] == [" $ python say.py a b", " …", "-c", "+a", "+b"]


def test_more_lines_than_expected(folder: Path) -> None:
    report = red(folder, "~~~console\n$ python say.py a b\na\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:3: terminal printed more than the README says"
    assert report.splitlines()[4:7] == [" $ python say.py a b", " a", "+b"]


def test_output_where_none_is_expected_although_it_never_ends(folder: Path) -> None:
    begin = time.monotonic()
    report = red(folder, "~~~console\n$ python stubborn.py\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:2: terminal printed more than the README says"
    assert time.monotonic() - begin < 20


def test_an_exit_code_that_is_not_expected(folder: Path) -> None:
    report = red(folder, "~~~console\n$ python fail.py\nerror: no\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:3: terminal ended with exit code 1, not 0"
    assert report.splitlines()[4:7] == [" $ python fail.py", " error: no", "+(exit code 1)"]
    report = red(folder, "~~~console\n$ python fail.py\nerror: no\n(exit code 69)\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:4: terminal ended with exit code 1, not 69"
    assert report.splitlines()[4:8] == [" $ python fail.py", " error: no", "-(exit code 69)", "+(exit code 1)"]


def test_a_program_that_does_not_return(folder: Path) -> None:
    report = red(folder, "~~~console within=1\n$ python stubborn.py\nready\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:3: terminal did not return within 1 s"
    report = red(folder, "~~~console a within=1\n$ python stubborn.py\nready\n^C\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:4: a did not return within 1 s after ^C"
    report = red(folder, "~~~console a within=1\n$ python stubborn.py\nready\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:3: a did not return within 1 s after ^C"


CRASH = """
    ~~~console worker
    $ python worker.py
     [*] Waiting
    ~~~
    ~~~console
    $ python send.py {letter}
     [x] Sent '{letter}'
    ~~~
    {then}
    """


@pytest.mark.parametrize(("letter", "code"), [("crash", 3), ("end", 0)])
def test_a_named_terminal_that_ends_by_itself(folder: Path, letter: str, code: int) -> None:
    then = f"~~~console worker\n     [x] Received '{letter}'\n     [x] Done\n    ~~~"
    report = red(folder, CRASH.format(letter=letter, then=then))
    assert report.splitlines()[0] == (
        f"work_queue/README.md:11: worker ended (exit code {code}) without this line:  [x] Done"
    )
    assert f"All that the command in worker printed:\n     [*] Waiting\n     [x] Received '{letter}'" in report


@pytest.mark.parametrize(("letter", "code"), [("crash", 3), ("end", 0)])
def test_a_named_terminal_that_ends_by_itself_unnoticed(folder: Path, letter: str, code: int) -> None:
    then = (
        f"~~~console worker\n     [x] Received '{letter}'\n    ~~~\n    ~~~console\n    $ python wait_ended.py\n    ~~~"
    )
    report = red(folder, CRASH.format(letter=letter, then=then))
    assert report.splitlines()[0] == f"work_queue/README.md:10: worker ended by itself (exit code {code})"
    # Before Ctrl-C too: nobody sees the key do anything.
    (folder / "letters").write_text("", encoding="utf-8")
    then += "\n    ~~~console worker\n    ^C\n    ~~~"
    report = red(folder, CRASH.format(letter=letter, then=then))
    assert report.splitlines()[0] == f"work_queue/README.md:16: worker ended (exit code {code}) before ^C"


def test_the_other_terminal_that_ended_is_told(folder: Path) -> None:
    then = "~~~console\n    $ python wait_ended.py\n    $ python say.py seen\n    expected\n    ~~~"
    report = red(folder, CRASH.format(letter="crash", then=then))
    assert report.splitlines()[0] == "work_queue/README.md:12: terminal printed another line: expected"
    assert report.endswith(
        "Before that, worker ended by itself (exit code 3); it printed:\n     [*] Waiting\n     [x] Received 'crash'"
    )


def test_lines_of_a_named_terminal_that_no_block_tells(folder: Path) -> None:
    then = "~~~console\n    $ python wait_seen.py\n    ~~~"
    report = red(folder, CRASH.format(letter="one", then=then))
    assert report.splitlines()[0] == "work_queue/README.md:3: worker printed more than the README says"
    assert report.splitlines()[-1] == "+ [x] Received 'one'"


def test_words_after_the_unwritten_ctrl_c(folder: Path) -> None:
    report = red(folder, "~~~console w\n$ python worker.py --polite\n [*] Waiting\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:3: w printed more than the README says"
    assert "+Bye" in report.splitlines()


def test_a_bad_end_after_ctrl_c(folder: Path) -> None:
    report = red(folder, "~~~console w\n$ python worker.py --rude\n [*] Waiting\n^C\n~~~\n")
    assert report.splitlines()[0] == "work_queue/README.md:4: w ended with exit code 5, not 0"


def test_a_command_that_cannot_be_run(folder: Path) -> None:
    with pytest.raises(CommandError) as caught:
        played(folder, "~~~console\n$ no-such-program at all\n~~~\n")
    assert str(caught.value) == (
        "work_queue/README.md:2: cannot run 'no-such-program at all': No such file or directory"
    )


def test_a_package_that_is_not_installed_is_no_mismatch(folder: Path) -> None:
    with pytest.raises(NotHere) as caught:
        played(folder, "~~~console\n$ python incomplete.py\nready\n~~~\n")
    assert str(caught.value) == "work_queue/README.md:2: rstream is not installed"


@pytest.mark.parametrize("terminal", ["", "a"])
def test_a_broker_that_is_too_old_is_no_mismatch(folder: Path, terminal: str) -> None:
    with pytest.raises(NotHere) as caught:
        played(folder, f"~~~console {terminal}\n$ python old.py\nready\n~~~\n")
    assert str(caught.value) == "work_queue/README.md:2: RabbitMQ 4.0 is needed"
    # Unless it is what the README says.
    assert played(folder, "~~~console\n$ python old.py\n…\n(exit code 79)\n~~~\n")


# What is left behind


def test_nothing_is_left_of_a_scenario_that_is_broken_off(folder: Path) -> None:
    markdown = "~~~console a\n$ python stubborn.py\nready\n~~~\n~~~console\n$ sleep 60\n~~~\n"
    with player(folder, markdown) as own:
        for event in own.events():
            if event == Typed("terminal", "sleep 60"):
                break
        wait_until(lambda: len(descendants(folder)) == 1)
    assert descendants(folder) == []
