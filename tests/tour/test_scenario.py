"""What is read out of a README, and how one that cannot be played is told."""

from __future__ import annotations

import pytest

from tour.scenario import (
    DEFAULT_LIMIT,
    AnyLines,
    Block,
    Command,
    Exit,
    Output,
    Press,
    ScenarioError,
    as_written,
    parse,
)
from tour.varying import Memory, Varying

README = """\
# Work *queues*

Tasks take long: e.g. a picture has to be
resized (in `3.5` s). Nobody wants to wait.

## Try it

<!-- varies: 4711 ~ \\d+ -->
```console
# Terminal 1: worker
$ python worker.py
 [*] Worker 4711 waits

 [x] Done in … s\x20\x20
^C
```

```sh
$ not a scenario
```

### Break it

~~~~console own-broker within=90
# Terminal 2
$ python -m broker \\
>   restart
…
(exit code 3)
$ echo ok
ok
~~~~

1. In a list:

   ```console
   # Terminal 1: another worker
   $ python worker.py
   ^C
   ```

Not fenced at all:

    ```console
    $ indented
    ```
"""


def block(text: str, words: str = "", terminal: str = "# Terminal 1\n") -> Block:
    return parse(f"```console {words}\n{terminal}{text}\n```\n").blocks[0]


def chain(*texts: str) -> tuple[Block, ...]:
    """The blocks of a README, each without its ``# Terminal ``."""
    return parse("\n".join(f"```console\n# Terminal {text}\n```" for text in texts)).blocks


def refused(markdown: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(markdown)
    return str(caught.value)


def test_a_readme_is_read() -> None:
    scenario = parse(README, "work_queue/README.md")
    assert scenario.source == "work_queue/README.md"
    assert scenario.title == "Work queues"
    assert scenario.sentence == "Tasks take long: e.g. a picture has to be resized (in 3.5 s)."
    first, second, third = scenario.blocks
    assert (first.line, first.heading, first.terminal, first.role) == (9, "Try it", 1, "worker")
    assert first.label == "1 worker"
    assert first.actions == (
        Command(11, "python worker.py"),
        Output(12, " [*] Worker 4711 waits", (Varying("4711", r"\d+"),)),
        Output(14, " [x] Done in … s"),
        Press(15),
    )
    assert first.limit == DEFAULT_LIMIT
    assert not first.own_broker
    assert (second.line, second.heading, second.terminal, second.label) == (24, "Break it", 2, "2")
    assert second.actions == (
        Command(26, "python -m broker restart"),
        AnyLines(28),
        Exit(29, 3),
        Command(30, "echo ok"),
        Output(31, "ok"),
    )
    assert second.limit == 90
    assert (third.line, third.label) == (36, "1 another worker")
    assert third.actions == (Command(38, "python worker.py"), Press(39))
    assert [as_written(action) for action in third.actions] == ["$ python worker.py", "^C"]


def test_what_a_block_needs_its_whole_section_needs() -> None:
    scenario = parse(README)
    assert [block.own_broker for block in scenario.blocks] == [False, True, True]
    assert scenario.restarts == scenario.blocks[1:]


def test_so_does_a_version() -> None:
    fence = "```console{}\n# Terminal 1\n$ true\n```\n"
    markdown = f"# A\n{fence.format('')}## B\n{fence.format('')}{fence.format(' needs=3.11')}{fence.format(' needs=4')}"
    assert [block.needs for block in parse(markdown).blocks] == [(), (4,), (4,), (4,)]
    with pytest.raises(ScenarioError, match="'needs=new' is not a version of RabbitMQ"):
        parse(fence.format(" needs=new"))


def test_a_block_that_is_not_played_is_still_there() -> None:
    played, read = (
        "```console\n# Terminal 2\n$ true\n```\n",
        "```console not-played\n# Terminal 1\nanything goes\n```\n",
    )
    scenario = parse(read + played)
    assert [block.played for block in scenario.blocks] == [False, True]
    assert scenario.played == scenario.blocks[1:]
    assert scenario.blocks[0].text == "# Terminal 1\nanything goes\n"


@pytest.mark.parametrize(
    ("expected", "seen", "fits"),
    [
        ("Done", "Done", True),
        ("Done", "Done  ", True),
        (" Done", "Done", False),
        ("Done", "Done.", False),
        ("a.c", "abc", False),
        ("took … s", "took 3.0 s", True),
        ("took … s", "took  s", True),
        ("took … s", "took 3.0 min", False),
        ("… → …", "x → y", True),
        ("[x] (…)*", "[x] (1)*", True),
        ("…", "", True),
    ],
)
def test_lines_that_fit(expected: str, seen: str, fits: bool) -> None:
    assert Memory().fits(expected, (), seen) is fits


@pytest.mark.parametrize(
    ("words", "text", "told"),
    [
        ("", "Done", "README.md:3: nothing runs in terminal 1; type a '$ command' first"),
        ("", "^C", "README.md:3: nothing runs in terminal 1; type a '$ command' first"),
        ("", "$ x\n(exit code 1)\nmore", "README.md:5: nothing runs in terminal 1; type a '$ command' first"),
        ("", "", "README.md:1: the block is empty"),
        ("worker", "$ x", "README.md:1: 'worker' after 'console' is not understood"),
        ("within=soon", "$ x", "README.md:1: 'within=soon' is not a number of seconds"),
        ("within=0", "$ x", "README.md:1: 'within=0' is not a number of seconds"),
        ("colour=red", "$ x", "README.md:1: 'colour=red' after 'console' is not understood"),
        ("", "$ ", "README.md:3: nothing is typed"),
        ("", "$", "README.md:3: nothing is typed"),
        ("", "$ x\n^\\", "README.md:4: ^\\ is no key of a scenario: ^C stops a program, kill -9 ends it"),
    ],
)
def test_what_cannot_be_played_is_told_with_its_line(words: str, text: str, told: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        block(text, words)
    assert str(caught.value) == told


# The terminals


@pytest.mark.parametrize(
    "first", ["", "# Terminal one\n", "# Terminal 0\n", "# Terminal 1:\n", "Terminal 1\n", "\n# Terminal 1\n"]
)
@pytest.mark.parametrize("words", ["", "not-played"])
def test_a_block_names_its_terminal(first: str, words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        block("$ true", words, first)
    assert str(caught.value) == (
        "README.md:1: the block does not name its terminal; "
        "its first line must be '# Terminal N' or '# Terminal N: role'"
    )


def test_a_terminal_goes_on_in_its_next_block() -> None:
    first, other, second, third = chain("1: a worker\n$ x", "2\n$ y", "1\nDone", "1: a worker\n^C\n$ z")
    assert [block.label for block in (first, other, second, third)] == ["1 a worker", "2", "1 a worker", "1 a worker"]
    assert [block.stays for block in (first, other, second, third)] == [True, False, True, False]


def test_another_program_has_another_role() -> None:
    assert [block.label for block in chain("1: receiver\n$ x", "1\n$ y", "1: sender\n$ z")] == [
        "1 receiver",
        "1",
        "1 sender",
    ]
    with pytest.raises(ScenarioError, match=r"README\.md:5: terminal 1 is 'receiver' in line 1"):
        chain("1: receiver\n$ x", "1: sender\nDone")


@pytest.mark.parametrize(
    ("then", "stays"),
    [
        ([], False),
        (["1\n$ again"], False),
        (["2\n$ other"], False),
        (["1\nDone"], True),
        (["1\n^C"], True),
        (["1\n…"], True),
        (["1\n(exit code 3)"], True),
        (["2\n$ other", "1\nDone"], True),
        (["2\n$ kill -9 4711"], True),
        (["2\n$ kill 4711", "1\n$ again"], True),
        (["2\n$ other", "2\n$ other\n$ kill -KILL 4711"], True),
        (["1\n$ again", "1\n^C"], False),
    ],
)
def test_whether_a_program_stays(then: list[str], stays: bool) -> None:
    rest = "".join(f"```console\n# Terminal {text}\n```\n" for text in then)
    first, *_ = parse(f"<!-- varies: 4711 ~ \\d+ -->\n```console\n# Terminal 1\n$ x\nI am 4711\n```\n{rest}").blocks
    assert first.stays is stays


def test_who_is_killed() -> None:
    worker = "<!-- varies: {0} ~ \\d+ -->\n```console\n# Terminal {1}\n$ x\nI am {0}\n```\n"
    kill = "```console\n# Terminal 3\n$ kill -9 {}\n```\n"
    blocks = parse(worker.format(4711, 1) + worker.format(4712, 2) + kill.format("4711 4712")).blocks
    assert blocks[2].actions == (Command(15, "kill -9 4711 4712", (1, 2)),)
    assert [block.stays for block in blocks] == [True, True, False]
    told = "no block has shown 4711 of a program that runs; above the one that does, write <!-- varies: 4711 ~ \\d+ -->"
    assert refused(kill.format(4711)) == f"README.md:3: {told}"
    # Its terminal has gone on to something else.
    other = "```console\n# Terminal 1\n$ y\n```\n"
    assert refused(worker.format(4711, 1) + other + kill.format(4711)) == f"README.md:13: {told}"


@pytest.mark.parametrize("second", ["Done", "$ kill -9 4711"])
def test_no_section_needs_a_program_of_one_that_may_be_skipped(second: str) -> None:
    markdown = (
        "# A\n<!-- varies: 4711 ~ \\d+ -->\n```console\n# Terminal 1\n$ x\nI am 4711\n```\n"
        f"## B\n```console own-broker\n# Terminal {1 if second == 'Done' else 2}\n{second}\n```\n"
    )
    assert parse(markdown.replace("own-broker", "")).blocks[0].stays
    assert refused(markdown) == (
        "README.md:9: this needs the program of line 3, which is in a section that is played elsewhere"
    )


# What varies


def test_examples_stand_directly_before_their_block() -> None:
    fence = "```console\n# Terminal 1\n$ x\n1.5 s and 4711\n```\n"
    number, seconds = "<!-- varies: 4711 ~ \\d+ -->", "<!-- varies: 1.5 s ~ [\\d.]+ s -->"
    both = (Varying("4711", r"\d+"), Varying("1.5 s", r"[\d.]+ s"))
    for comments in (f"{number}\n{seconds}\n", f"{number} {seconds}\n", f"Words.\n{number}\n{seconds}\n"):
        assert parse(comments + fence).blocks[0].actions[1] == Output(comments.count("\n") + 4, "1.5 s and 4711", both)
    nothing = "no console block begins directly below this comment"
    assert refused(f"{number}\n\n{fence}") == f"README.md:1: {nothing}"
    assert refused(f"{fence}\n{number}\n") == f"README.md:7: {nothing}"
    assert refused(f"{number}\n```sh\n4711\n```\n") == f"README.md:1: {nothing}"
    assert parse(f"<!-- Other words: 1 ~ 2 -->\n{fence}").blocks


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("4711", "it must be <!-- varies: TEXT ~ REGULAR EXPRESSION -->"),
        ("4711 ~ ", "it must be <!-- varies: TEXT ~ REGULAR EXPRESSION -->"),
        ("4711 ~ (", r"'(' is no regular expression: missing ), unterminated subpattern at position 0"),
        ("4711 ~ [a-z]+", r"'4711' does not match its own pattern '[a-z]+'"),
    ],
)
def test_a_comment_that_cannot_be_read(comment: str, told: str) -> None:
    assert (
        refused(f"# A\n\n<!-- varies: {comment} -->\n```console\n# Terminal 1\n$ x\n4711\n```\n")
        == f"README.md:3: {told}"
    )


def test_an_example_that_the_block_does_not_show() -> None:
    told = refused("<!-- varies: 4711 ~ \\d+ -->\n```console\n# Terminal 1\n$ x 4711\nDone\n```\n")
    assert told == "README.md:2: '4711', which varies, is nowhere in the output of this block"


def test_what_is_remembered() -> None:
    memory = Memory()
    number, rate = Varying("4711", r"\d+"), Varying("12/s", r"[\d.]+/s")
    assert memory.real("kill -9 4711") == "kill -9 4711"
    assert not memory.fits("Worker 4711", [], "Worker 12")
    assert memory.fits("Worker 4711", [number], "Worker 12")
    assert memory.real("kill -9 4711") == "kill -9 4711"
    assert memory.accept("Worker 4711", [number], "Worker 12")
    assert memory.real("kill -9 4711 14711 4711.5") == "kill -9 12 14711 4711.5"
    assert memory.fits("Worker 4711 of 14711", [], "Worker 12 of 14711")
    assert not memory.fits("Worker 4711", [], "Worker 13")
    assert memory.accept("4711 does 12/s: … 4711", [number, rate], "13 does 0.5/s: tasks 14")
    assert memory.real("4711, 12/s.") == "14, 0.5/s."
    assert not memory.accept("4711", [], "99")
    assert memory.real("4711") == "14"


@pytest.mark.parametrize(
    ("markdown", "title", "sentence"),
    [
        ("", "", ""),
        ("Text only.", "", ""),
        ("# Title\n\nOne sentence without an end", "Title", "One sentence without an end"),
        ("# A & B\n\n> Quoted.\n\nIs *this* it? Yes.", "A & B", "Is this it?"),
        ("# T\n\n[![badge](a.svg)](b)\n\nFirst. Second.", "T", "First."),
    ],
)
def test_title_and_sentence(markdown: str, title: str, sentence: str) -> None:
    scenario = parse(markdown)
    assert (scenario.title, scenario.sentence, scenario.blocks) == (title, sentence, ())
