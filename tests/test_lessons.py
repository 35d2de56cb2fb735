"""The core lessons: none uses what a later one explains, and all that matters stands in the script, on one screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tour.examples import mapped_folders

ROOT = Path(__file__).resolve().parents[1]
ORDER = [folder.relative_to(ROOT).as_posix() for folder in mapped_folders(ROOT)]
FIRST_SHELF = "reliability/dead_letters"
CORE = ORDER[: ORDER.index(FIRST_SHELF)]

# What each lesson explains. A word is a method, an argument, a property or a class of pika's, or a module; what begins
# with "x-" or has another character that no name has is a string; "fanout exchange" is a type of exchange.
EXPLAINS = {
    "send_and_receive": {
        "queue_declare", "durable", "basic_publish", "basic_consume", "basic_ack", "start_consuming", "delivery_mode",
        "DeliveryMode", "confirm_delivery",
    },
    "work_queue": {"basic_qos", "prefetch_count", "basic_reject", "requeue", "auto_ack", "redelivered"},
    "publish_subscribe": {
        "exchange_declare", "exchange_type", "ExchangeType", "fanout exchange", "queue_bind", "exclusive",
        "queue_delete",
    },
    "routing": {
        "direct exchange", "headers exchange", "headers", "x-match", "mandatory", "UnroutableError",
        "add_on_return_callback", "alternate-exchange",
    },
    "topics": {"topic exchange", "exchange_bind", "exchange_unbind"},
    "rpc": {"reply_to", "correlation_id", "expiration", "amq.rabbitmq.reply-to"},
    "publisher_confirms": {
        "SelectConnection", "NackError", "ack_nack_callback", "x-max-length", "x-overflow", "tx_select", "tx_commit",
        "tx_rollback", "message_id",
    },
    "robust_clients": {
        "threading", "concurrent", "queue", "add_callback_threadsafe", "robust_pika", "tenacity",
        "ConnectionClosedByBroker", "StreamLostError",
    },
    # Queues with arguments begin here; those that are not named above, too.
    FIRST_SHELF: {"x-queue-type", "x-delivery-limit", "x-dead-letter-exchange", "x-dead-letter-routing-key"},
}  # fmt: skip
# What lessons 1 to 7 may use of ours, by module.
KIT = {
    "common": {"console", "messages"},
    "common.config": {"Settings"},
    "common.connection": {"Channel", "connect"},
    "common.console": {"parser", "say", "warn", "whole", "seconds", "body_text", "run"},
    "common.errors": {"BadMessage", "ExitCode", "Failure"},
    "common.messages": {"BadMessage", "decode_text", "encode_text"},
}
# Modules are counted by their import only: a variable or an attribute may be called like one.
MODULES = {"threading", "concurrent", "queue", "robust_pika", "tenacity"}
LONGEST, LONGEST_OF_THE_FIRST, LARGEST_COMMON = 70, 35, 900
# What the sender and the receiver of the first lesson are called.
FIRST_SCRIPTS = ("send.py", "receive.py")


def scripts(lesson: str) -> list[Path]:
    """The Python files of a lesson."""
    return sorted((ROOT / lesson).glob("*.py"))


CORE_SCRIPTS = [path for lesson in CORE for path in scripts(lesson)]
each_core_script = pytest.mark.parametrize(
    "path", CORE_SCRIPTS, ids=[path.relative_to(ROOT).as_posix() for path in CORE_SCRIPTS]
)


def used(source: str) -> dict[str, int]:
    """The words, strings and types of exchanges in a script, each with the first line where it is used."""
    found: dict[str, int] = {}
    for word, line in sorted(_used(ast.parse(source)), key=lambda item: item[1]):
        found.setdefault(word, line)
    return found


def _used(module: ast.Module) -> Iterator[tuple[str, int]]:
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name.partition(".")[0], node.lineno) for alias in names)
            case ast.ImportFrom(module=name, names=names):
                yield (name or "").partition(".")[0], node.lineno
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.Attribute(attr=word) if word not in MODULES:
                yield word, node.lineno
            case ast.keyword(arg=str(word)) if word not in MODULES:
                yield word, node.value.lineno
            case ast.Name(id=word) if word not in MODULES:
                yield word, node.lineno
            case ast.Constant(value=str(text)):
                yield text, node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "exchange_declare":
            yield f"{_exchange_type(node, constants)} exchange", node.lineno


def _exchange_type(call: ast.Call, constants: dict[str, ast.expr | None]) -> str:
    value: ast.expr | None = call.args[1] if len(call.args) > 1 else None
    value = next((keyword.value for keyword in call.keywords if keyword.arg == "exchange_type"), value)
    if isinstance(value, ast.Name):
        value = constants.get(value.id)
    match value:
        case None:
            return "direct"
        case ast.Constant(value=str(text)):
            return text
        case ast.Attribute(attr=word):
            return word
        case _:
            return "unknown"


def too_early(source: str, lesson: str, order: list[str]) -> list[str]:
    """What a script of ``lesson`` uses that a later one explains; ``order`` are the lessons in reading order."""
    places = {name: place for place, name in enumerate(order)}
    # A lesson that is not there yet explains nothing to anybody.
    explained = {word: places.get(name, len(order)) for name, words in EXPLAINS.items() for word in words}
    found = []
    for word, line in used(source).items():
        place = explained.get(word, len(order) if word.startswith("x-") else -1)
        if place > places[lesson]:
            found.append(f"line {line}: {word}")
    return found


def not_in_the_kit(source: str) -> list[str]:
    """What a script imports of ours that is not for the lessons in plain pika."""
    found = []
    modules = {"console", "messages"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("common", "robust_pika"):
            allowed = KIT.get(node.module or "", set())
            found += [f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name not in allowed]
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.partition(".")[0] in ("common", "robust_pika")]
            found += [f"line {node.lineno}: {name}" for name in ours]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            allowed = KIT[f"common.{node.value.id}"] if node.value.id in modules else {node.attr}
            found += [f"line {node.lineno}: {node.value.id}.{node.attr}"] if node.attr not in allowed else []
    return found


def hidden(name: str, source: str) -> list[str]:
    """What a consumer has to show and does not. A script that consumes nothing has to show nothing."""
    words = used(source).keys()
    consumes = words & {"start_consuming", "basic_consume", "basic_get", "consume", "process_data_events"}
    if not consumes and not name.startswith(("receive", "worker", "rpc_server")):
        return []
    wanted = ["basic_consume"] if "auto_ack" in words else ["basic_consume", "basic_ack"]
    return [word for word in wanted if word not in words]


# The lessons


def test_there_is_something_to_check() -> None:
    assert CORE[:7] == list(EXPLAINS)[:7]
    assert set(CORE) <= set(EXPLAINS)
    assert all(len(scripts(lesson)) >= 2 for lesson in CORE)


@each_core_script
def test_a_lesson_uses_only_what_is_explained_by_then(path: Path) -> None:
    lesson = path.parent.relative_to(ROOT).as_posix()
    assert too_early(path.read_text(encoding="utf-8"), lesson, ORDER) == []


@each_core_script
def test_what_a_plain_lesson_uses_of_ours(path: Path) -> None:
    if path.parent.name != "robust_clients":
        assert not_in_the_kit(path.read_text(encoding="utf-8")) == []


@each_core_script
def test_a_script_fits_on_one_screen(path: Path) -> None:
    first = path.parent.name == "send_and_receive" and path.name in FIRST_SCRIPTS
    assert len(path.read_text(encoding="utf-8").splitlines()) <= (LONGEST_OF_THE_FIRST if first else LONGEST)


@pytest.mark.parametrize("lesson", CORE[:6])
def test_consumers_show_how_they_consume(lesson: str) -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in scripts(lesson)}
    assert {name: missing for name, source in sources.items() if (missing := hidden(name, source))} == {}
    assert any("basic_ack" in used(source) for source in sources.values())


@pytest.mark.parametrize("name", FIRST_SCRIPTS)
def test_the_first_lesson_has_its_scripts(name: str) -> None:
    assert (ROOT / CORE[0] / name).is_file()


def test_what_the_scripts_share_can_be_read_in_ten_minutes() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "common").rglob("*.py")}
    assert sum(lines.values()) <= LARGEST_COMMON, lines


# The checks themselves


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("channel.basic_qos(prefetch_count=1)", "basic_qos"),
        ("consume = channel.basic_qos", "basic_qos"),
        ("channel.basic_consume(queue, work, auto_ack=True)", "auto_ack"),
        ("if method.redelivered: pass", "redelivered"),
        ("channel.queue_declare('', exclusive=True)", "exclusive"),
        ("channel.exchange_declare('logs', 'fanout')", "fanout exchange"),
        ("channel.exchange_declare('logs', exchange_type='topic')", "topic exchange"),
        ("channel.exchange_declare('logs', exchange_type=ExchangeType.headers)", "headers exchange"),
        ("channel.exchange_declare('logs', TYPE)\nTYPE = 'topic'", "topic exchange"),
        ("channel.exchange_declare('logs')", "direct exchange"),
        ("ARGUMENTS = {'alternate-exchange': 'x'}", "alternate-exchange"),
        ("pika.BasicProperties(expiration='100')", "expiration"),
        ("channel.queue_declare(QUEUE, arguments={'x-max-length': 1})", "x-max-length"),
        ("channel.queue_declare(QUEUE, arguments={'x-expires': 1})", "x-expires"),
        ("connection = pika.SelectConnection(parameters)", "SelectConnection"),
        ("from pika import SelectConnection", "SelectConnection"),
        ("import threading", "threading"),
        ("from concurrent.futures import ThreadPoolExecutor", "concurrent"),
        ("from robust_pika import consume", "robust_pika"),
        ("import robust_pika.hooks", "robust_pika"),
    ],
)
def test_what_is_too_early(line: str, word: str) -> None:
    order = [*EXPLAINS]
    assert f"line 3: {word}" in too_early(f"import pika\n\n{line}\n", "send_and_receive", order)
    lesson = next((name for name, words in EXPLAINS.items() if word in words), "")
    if lesson:
        assert f"line 3: {word}" not in too_early(f"import pika\n\n{line}\n", lesson, order)
        # Where its lesson is not there yet, nobody may use it.
        order.remove(lesson)
        assert f"line 3: {word}" in too_early(f"import pika\n\n{line}\n", order[-1], order)


@pytest.mark.parametrize(
    "source",
    [
        '"""Waits in a queue; x-match is for later, threading, too."""\nqueue = 1\nprint(queue, method.queue)',
        "channel.queue_declare(QUEUE, durable=True)\nchannel.basic_publish('', QUEUE, b'')",
        "channel.basic_consume(QUEUE, work)\nchannel.start_consuming()",
        "# threading\ntext = 'a topic, a fanout'",
    ],
)
def test_what_is_not_too_early(source: str) -> None:
    assert too_early(source, "send_and_receive", [*EXPLAINS]) == []


def test_what_is_not_in_the_kit() -> None:
    source = (
        "from common import console, management\n"
        "from common.config import Settings\n"
        "from common.consumer import consume\n"
        "from common.connection import connect, require\n"
        "import common.connection\n"
        "console.say(connection.channel)\n"
        "messages.properties()\n"
        "from robust_pika import Publisher\n"
    )
    assert not_in_the_kit(source) == [
        "line 1: management",
        "line 3: consume",
        "line 4: require",
        "line 5: common.connection",
        "line 8: Publisher",
        "line 7: messages.properties",
    ]


@pytest.mark.parametrize(
    ("name", "source", "missing"),
    [
        ("send.py", "channel.basic_publish('', QUEUE, b'')", []),
        ("worker.py", "channel.basic_consume(QUEUE, work); channel.basic_ack(1); channel.start_consuming()", []),
        ("worker.py", "consume(connection, QUEUE, work)", ["basic_consume", "basic_ack"]),
        ("show.py", "for message in channel.consume(QUEUE): pass", ["basic_consume", "basic_ack"]),
        ("show.py", "channel.basic_consume(QUEUE, work); channel.start_consuming()", ["basic_ack"]),
        ("show.py", "channel.basic_consume(QUEUE, work, auto_ack=True); channel.start_consuming()", []),
    ],
)
def test_what_a_consumer_hides(name: str, source: str, missing: list[str]) -> None:
    assert hidden(name, source) == missing
