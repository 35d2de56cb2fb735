"""Bodies and properties: what we write, and what others wrote, read without a crash."""

from __future__ import annotations

import json
import math
import time
import uuid
from typing import Any

import pytest
from pika import BasicProperties

from common import messages
from common.config import Settings
from common.connection import connect
from common.errors import BadMessage, ExitCode, described
from common.messages import MAX_BODY_BYTES, encode_json, encode_text
from robust_pika import Message


def message(body: bytes, **properties: Any) -> Message:
    return Message(body, BasicProperties(**properties), "exchange", "key")


@pytest.mark.parametrize("text", ["x", "Grüße ✓ 🐇", "a\nb\x00c", " "])
def test_text_out_and_in(text: str) -> None:
    assert message(encode_text(text)).text() == text


@pytest.mark.parametrize("value", [0, "", None, [], {"é": ["✓", 1.5, True]}, 10**30, "\x1b[31m"])
def test_json_out_and_in(value: object) -> None:
    body = encode_json(value)
    assert message(body).json() == value
    assert json.loads(body) == value


def test_json_is_compact_utf_8() -> None:
    assert encode_json({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


@pytest.mark.parametrize("value", [{1, 2}, object(), math.nan, math.inf, {"x": b"bytes"}, {(1, 2): 3}, "\ud800"])
def test_what_has_no_json_form_is_told(value: object) -> None:
    with pytest.raises(BadMessage):
        encode_json(value)


def test_a_value_that_contains_itself_is_told() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadMessage, match="JSON"):
        encode_json(endless)


def test_the_empty_text_and_half_a_character_are_told() -> None:
    with pytest.raises(BadMessage, match="empty") as caught:
        encode_text("")
    assert described(caught.value)[1] == ExitCode.DATA
    with pytest.raises(BadMessage, match="not valid UTF-8"):
        encode_text("half \ud83d")


def test_the_limit_is_counted_in_bytes() -> None:
    half = MAX_BODY_BYTES // 2
    assert len(encode_text("é" * half)) == MAX_BODY_BYTES
    with pytest.raises(BadMessage, match=r"16,777,217 bytes, more than the 16,777,216"):
        encode_text("é" * half + "x")
    with pytest.raises(BadMessage, match="store large data elsewhere"):
        encode_json("x" * MAX_BODY_BYTES)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"x" * (MAX_BODY_BYTES + 1)],
    ids=["empty", "no UTF-8", "Latin-1", "half a character", "five bytes", "too large"],
)
def test_a_foreign_body_that_is_no_text_is_a_bad_message(body: bytes) -> None:
    for read in (Message.text, Message.json):
        with pytest.raises(BadMessage) as caught:
            read(message(body))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nix",
        b"{'a': 1}",
        b"[1,]",
        b"NaN",
        b'{"a": -Infinity}',
        b"1 2",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_a_foreign_body_that_is_no_json_is_a_bad_message(body: bytes) -> None:
    with pytest.raises(BadMessage, match="not JSON") as caught:
        message(body).json()
    assert "\n" not in str(caught.value)


def test_a_body_is_taken_for_what_it_is_declared_to_be() -> None:
    assert message(b"x", content_type="text/plain").text() == "x"
    assert message(b"x", content_type="Text/HTML; charset=utf-8").text() == "x"
    with pytest.raises(BadMessage, match="'application/octet-stream', not text"):
        message(b"x", content_type="application/octet-stream").text()
    assert message(b"{}", content_type="application/json").json() == {}


def test_properties_of_ours_are_those_of_a_persistent_message_with_an_id() -> None:
    before = int(time.time())
    first, second = messages.properties(), messages.properties()
    assert (first.delivery_mode, first.content_type) == (2, "text/plain")
    assert before <= first.timestamp <= time.time()
    assert uuid.UUID(first.message_id) != uuid.UUID(second.message_id)


def test_properties_can_be_added_and_replaced() -> None:
    made = messages.properties(
        "application/json", type="order", headers={"attempt": 1}, message_id="mine", expiration="60000", priority=3
    )
    assert (made.content_type, made.type, made.headers) == ("application/json", "order", {"attempt": 1})
    assert (made.message_id, made.expiration, made.priority) == ("mine", "60000", 3)


def test_everything_survives_the_broker(settings: Settings) -> None:
    sent = messages.properties(
        "application/json", type="order", headers={"é": "✓"}, correlation_id="c", expiration="60000"
    )
    body = encode_json({"é": ["✓", 1.5, None]})
    with connect("tests.messages", settings) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, sent, mandatory=True)
        method, received, arrived = channel.basic_get(queue, auto_ack=True)
    assert received == sent
    taken = Message(arrived, received, method.exchange, method.routing_key, method.redelivered)
    assert taken.json() == {"é": ["✓", 1.5, None]}
    assert (taken.routing_key, taken.redelivered) == (queue, False)


def test_the_largest_body_passes_and_one_byte_more_would_not(
    settings: Settings, broker_version: tuple[int, ...]
) -> None:
    if broker_version < (4, 0):
        pytest.skip(f"RabbitMQ {'.'.join(map(str, broker_version))} takes larger messages; 16 MiB is the limit of 4.x")
    with connect("tests.messages", settings) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        body = encode_text("x" * MAX_BODY_BYTES)
        channel.basic_publish("", queue, body, mandatory=True)
        assert channel.basic_get(queue, auto_ack=True)[2] == body
        with pytest.raises(Exception, match=r"PRECONDITION_FAILED.*larger than configured max size"):
            channel.basic_publish("", queue, body + b"x", mandatory=True)


# Properties as they came


def test_properties_are_read_when_they_are_asked_for() -> None:
    own = BasicProperties(message_id="7", headers={"a": [1, None, {"b": b"c"}]}, priority=3, timestamp=1)
    came = Message(b"x", b"".join(own.encode()), "", "key")
    assert came.properties == own
    assert came.properties is came.properties
    assert came.name == "7"


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x80", b"\x80\x00", b"\x20\x00\x00\x00\x00\x09\x01aZ", b"\x00\x40\x00", b"\xff" * 40],
    ids=["nothing", "half flags", "no text", "a header of no known kind", "half a time", "no sense"],
)
def test_properties_that_make_no_sense_are_told(encoded: bytes) -> None:
    came = Message(b"x", encoded, "", "key")
    with pytest.raises(BadMessage, match="properties cannot be decoded"):
        assert came.properties
    assert came.name == "(no id)"
    with pytest.raises(BadMessage):
        came.text()


def test_a_message_can_be_printed_whatever_is_in_it() -> None:
    assert repr(message(b"x" * 1000, message_id="7")) == "Message(7, 1,000 bytes, from 'exchange' with key 'key')"
    assert repr(Message(b"", b"", "", "\n")) == "Message((no id), 0 bytes, from '' with key '\\n')"


def test_a_message_without_an_id_says_so() -> None:
    assert message(b"x").name == "(no id)"
    assert message(b"x", message_id="").name == "(no id)"


def test_a_content_type_that_is_not_utf_8_is_no_text() -> None:
    came = Message(b"x", b"\x80\x00\x02\xff\xfe", "", "key")
    with pytest.raises(BadMessage, match="not text"):
        came.text()
