"""The helper itself: what it reads, and how it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.process import Script, run_script, wait_until

each_way = pytest.mark.parametrize("way", ["new", "fork"])
TALKER = "import sys, time; print('one'); print('two', file=sys.stderr); print('three'); time.sleep(60)"


def arguments(way: str, code: str, folder: Path) -> tuple[str, ...]:
    """``python`` with these runs the code, in a new interpreter or in a fork."""
    if way == "new":
        return ("-c", code)
    file = folder / "talker.py"
    file.write_text(code, encoding="utf-8")
    return (str(file),)


@pytest.fixture(params=["new", "fork"])
def talker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Script]:
    with Script(*arguments(request.param, TALKER, tmp_path), environ=os.environ) as script:
        yield script


def test_lines_come_in_order_and_once(talker: Script) -> None:
    assert talker.expect("t(w)o")[1] == "w"
    talker.expect("^three$")
    assert talker.lines == ["one", "two", "three"]
    with pytest.raises(AssertionError, match=r"no line with 'one': 0.1 s have passed\none\ntwo\nthree"):
        talker.expect("one", limit=0.1)


def test_its_end_is_noticed(talker: Script) -> None:
    talker.expect("three")
    assert talker.code is None
    talker.kill()
    assert talker.wait() == -signal.SIGKILL
    with pytest.raises(AssertionError, match="ended with -9"):
        talker.expect("four")


@each_way
def test_nothing_is_left_behind(way: str, tmp_path: Path) -> None:
    with Script(*arguments(way, TALKER, tmp_path), environ=os.environ) as script:
        script.expect("one")
    assert not psutil.pid_exists(script.pid)


def test_one_that_does_not_end_is_told(talker: Script) -> None:
    talker.expect("three")
    with pytest.raises(AssertionError, match=r"still running after 0.1 s\none"):
        talker.wait(0.1)


@each_way
def test_a_run_to_the_end(way: str, tmp_path: Path) -> None:
    code = "print(input()); raise SystemExit('no')"
    done = run_script(*arguments(way, code, tmp_path), environ=os.environ, stdin=b"hello\n")
    assert (done.code, done.out, done.err) == (1, "hello\n", "no\n")


SURROUNDINGS = "import os, sys; print(sys.argv, sys.path[0], os.getcwd(), sorted(os.environ), __name__)"


def test_a_fork_has_the_surroundings_of_a_new_interpreter(tmp_path: Path) -> None:
    [file] = arguments("fork", SURROUNDINGS, tmp_path)
    environ = {**os.environ, "OF_THIS_TEST": "é"}
    told = [
        run_script(file, "a", "b c", environ={**environ, **more}, folder=tmp_path).out
        # What is read at the start of an interpreter only, so that the second is a new one.
        for more in ({}, {"PYTHONHASHSEED": "1"})
    ]
    assert told[0] == told[1].replace("'PYTHONHASHSEED', ", "")
    assert "OF_THIS_TEST" in told[0]


def test_a_condition_is_waited_for() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), every=0) == 7
    with pytest.raises(AssertionError, match=r"still 0 after 0.05 s"):
        wait_until(lambda: 0, 0.05)
