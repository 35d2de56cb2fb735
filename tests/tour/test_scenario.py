"""What is read out of a README, and how one that cannot be played is told."""

from __future__ import annotations

import pytest

from tour.scenario import (
    DEFAULT_LIMIT,
    AnyLines,
    Block,
    Command,
    Exit,
    Key,
    Output,
    Press,
    ScenarioError,
    as_written,
    parse,
)

README = """\
# Work *queues*

Tasks take long: e.g. a picture has to be
resized (in `3.5` s). Nobody wants to wait.

## Try it

```console worker-1
$ python worker.py
 [*] Waiting

 [x] Done in … s\x20\x20
^C
```

```sh
$ not a scenario
```

### Break it

~~~~console own-broker within=90
$ python -m broker \\
>   restart
…
(exit code 3)
$ echo ok
ok
~~~~

1. In a list:

   ```console worker-1
   $ python worker.py
   ^\\
   ```

Not fenced at all:

    ```console
    $ indented
    ```
"""


def block(text: str, info: str = "") -> Block:
    return parse(f"```console {info}\n{text}\n```\n").blocks[0]


def test_a_readme_is_read() -> None:
    scenario = parse(README, "work_queue/README.md")
    assert scenario.source == "work_queue/README.md"
    assert scenario.title == "Work queues"
    assert scenario.sentence == "Tasks take long: e.g. a picture has to be resized (in 3.5 s)."
    first, second, third = scenario.blocks
    assert (first.line, first.heading, first.terminal, first.label) == (8, "Try it", "worker-1", "worker-1")
    assert first.actions == (
        Command(9, "python worker.py"),
        Output(10, " [*] Waiting"),
        Output(12, " [x] Done in … s"),
        Press(13, Key.INTERRUPT),
    )
    assert first.limit == DEFAULT_LIMIT
    assert not first.own_broker
    assert (second.line, second.heading, second.terminal, second.label) == (22, "Break it", None, "terminal")
    assert second.actions == (
        Command(23, "python -m broker restart"),
        AnyLines(25),
        Exit(26, 3),
        Command(27, "echo ok"),
        Output(28, "ok"),
    )
    assert second.limit == 90
    assert (third.line, third.terminal) == (33, "worker-1")
    assert third.actions == (Command(34, "python worker.py"), Press(35, Key.QUIT))
    assert [as_written(action) for action in third.actions] == ["$ python worker.py", "^\\"]


def test_what_a_block_needs_its_whole_section_needs() -> None:
    scenario = parse(README)
    assert [block.own_broker for block in scenario.blocks] == [False, True, True]
    assert scenario.restarts == scenario.blocks[1:]


def test_so_does_a_version() -> None:
    fence = "```console{}\n$ true\n```\n"
    markdown = f"# A\n{fence.format('')}## B\n{fence.format('')}{fence.format(' needs=3.11')}{fence.format(' needs=4')}"
    assert [block.needs for block in parse(markdown).blocks] == [(), (4,), (4,), (4,)]
    with pytest.raises(ScenarioError, match="'needs=new' is not a version of RabbitMQ"):
        parse(fence.format(" needs=new"))


def test_a_block_that_is_not_played_is_still_there() -> None:
    scenario = parse("```console not-played\nanything goes\n```\n```console\n$ true\n```\n")
    assert [block.played for block in scenario.blocks] == [False, True]
    assert scenario.played == scenario.blocks[1:]
    assert scenario.blocks[0].text == "anything goes\n"


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
    assert Output(1, expected).matches(seen) is fits


@pytest.mark.parametrize(
    ("info", "text", "told"),
    [
        ("", "Done", "README.md:2: nothing runs in terminal; type a '$ command' first"),
        ("a", "^C", "README.md:2: nothing runs in a; type a '$ command' first"),
        ("a", "$ x\n(exit code 1)\nmore", "README.md:4: nothing runs in a; type a '$ command' first"),
        ("", "", "README.md:1: the block is empty"),
        ("a b", "$ x", "README.md:1: 'b' after 'console' is not understood"),
        ("a within=soon", "$ x", "README.md:1: 'within=soon' is not a number of seconds"),
        ("within=0", "$ x", "README.md:1: 'within=0' is not a number of seconds"),
        ("colour=red", "$ x", "README.md:1: 'colour=red' after 'console' is not understood"),
        ("", "$ ", "README.md:2: nothing is typed"),
        ("", "$", "README.md:2: nothing is typed"),
    ],
)
def test_what_cannot_be_played_is_told_with_its_line(info: str, text: str, told: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        block(text, info)
    assert str(caught.value) == told


def test_a_terminal_goes_on_in_its_next_block() -> None:
    scenario = parse("```console a\n$ x\n```\n```console a\nDone\n^C\n```\n")
    assert [len(block.actions) for block in scenario.blocks] == [1, 2]


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
