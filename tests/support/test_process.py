"""The helper itself: what it reads, and how it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.support.process import Script, run_script, wait_until

TALKER = "import sys, time; print('one'); print('two', file=sys.stderr); print('three'); time.sleep(60)"


@pytest.fixture
def talker() -> Iterator[Script]:
    with Script("-c", TALKER, environ=os.environ) as script:
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


def test_nothing_is_left_behind() -> None:
    with Script("-c", TALKER, environ=os.environ) as script:
        script.expect("one")
    assert not psutil.pid_exists(script.pid)


def test_one_that_does_not_end_is_told(talker: Script) -> None:
    talker.expect("three")
    with pytest.raises(AssertionError, match=r"still running after 0.1 s\none"):
        talker.wait(0.1)


def test_a_run_to_the_end() -> None:
    done = run_script("-c", "print(input()); raise SystemExit('no')", environ=os.environ, stdin=b"hello\n")
    assert (done.code, done.out, done.err) == (1, "hello\n", "no\n")


def test_a_condition_is_waited_for() -> None:
    answers = iter([0, 0, 7])
    assert wait_until(lambda: next(answers), every=0) == 7
    with pytest.raises(AssertionError, match=r"still 0 after 0.05 s"):
        wait_until(lambda: 0, 0.05)
