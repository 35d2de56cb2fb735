"""A virtual host of its own: there while it is needed, gone afterwards, usable by a child process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import Address, Settings, Tls
from common.connection import connect
from robust_pika.errors import VhostNotFound
from tour.vhost import environment, fresh_vhost


def test_it_is_usable_and_then_gone(configured: Settings, broker_version: tuple[int, int, int]) -> None:
    assert broker_version >= (3, 10, 0)
    with fresh_vhost(configured, "tests/é") as own:
        assert own.vhost != configured.vhost
        with connect("tests", own) as connection:
            queue = connection.channel().queue_declare("", exclusive=True).method.queue
            assert queue
    with pytest.raises(VhostNotFound):
        connect("tests", own)


def test_it_is_gone_after_an_error_too(configured: Settings, broker_version: tuple[int, int, int]) -> None:
    assert broker_version
    with pytest.raises(KeyError), fresh_vhost(configured, "tests") as own:
        raise KeyError
    with pytest.raises(VhostNotFound):
        connect("tests", own)


def test_a_child_process_reads_the_same_settings(environ: dict[str, str], settings: Settings) -> None:
    code = "from common.config import Settings; s = Settings.load(env_file=None); print(s.url, s.management_url)"
    seen = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert seen.stdout.split() == [settings.url, settings.management_url]


def test_the_environment_names_everything_and_drops_the_rest(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    settings = Settings(
        addresses=(Address("a", 1), Address("::1", 2)),
        user="u@",
        password="p/:",
        vhost="v/é",
        tls=Tls(ca_file),
        stream_port=3,
        web_mqtt_port=4,
    )
    values = environment(settings, {"PATH": "/bin", "RABBITMQ_HEARTBEAT": "1", "AMQP_URL": "amqp://other"})
    assert "RABBITMQ_HEARTBEAT" not in values
    assert values["PATH"] == "/bin"
    read = Settings.load(values, env_file=None)
    assert read == replace(settings, management_url=read.management_url)
    assert read.password == "p/:"
