"""A README as the page shows it: what is a step, and what a reader does not see."""

from __future__ import annotations

from pathlib import Path

import pytest

from playground.lesson import Lesson, lesson, sources
from tour.examples import examples

README = """\
# Title

A sentence.

```mermaid
flowchart LR
```

See [worker.py](worker.py), <b>not bold</b>, <!-- nor this --> and:

```python worker.py
print("work")
```

<!-- varies: 4711 ~ \\d+ -->
```console
# Terminal 1: worker
$ python worker.py
 [*] Worker 4711 <waits>
```

```console own-broker
# Terminal 2
$ kill -9 4711
```

<table><tr><td>a table</td></tr></table>
"""


@pytest.fixture
def shown(tmp_path: Path) -> Lesson:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "one" / "worker.py").touch()
    (found,) = examples(tmp_path)
    return lesson(found, tmp_path, [found], sources(tmp_path, [found]))


def test_each_block_is_a_step_with_its_terminal(shown: Lesson) -> None:
    assert [(step["terminal"], step["commands"]) for step in shown.outline()] == [
        ("1 worker", ["python worker.py"]),
        ("2", ["kill -9 4711"]),
    ]
    assert "<figcaption>1. Terminal 1 worker · restarts RabbitMQ</figcaption><pre><code><b>$ python" in shown.html
    assert " [*] Worker 4711 &lt;waits&gt;" in shown.html
    assert "<figcaption>2. Terminal 2 · restarts RabbitMQ</figcaption>" in shown.html


def test_what_is_not_shown(shown: Lesson) -> None:
    for text in ("varies", "nor this", "&lt;!--", "<!--", "# Terminal", "flowchart"):
        assert text not in shown.html
    # HTML is text, whoever wrote it.
    assert "&lt;b&gt;not bold&lt;/b&gt;" in shown.html
    assert "<p>&lt;table&gt;" in shown.html
    assert "print(&quot;work&quot;)" in shown.html
    assert 'data-source="one/worker.py"' in shown.html


def test_a_readme_that_cannot_be_played_says_why(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "README.md").write_text("# One\n\n```console\n$ true\n```\n", encoding="utf-8")
    (found,) = examples(tmp_path)
    broken = lesson(found, tmp_path, [found], {})
    assert broken.listed()["steps"] == 0
    assert broken.sentence.startswith("one/README.md:3: the block does not name its terminal")
