"""Three nodes: what was confirmed survives the loss of the node that led the queue."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from pika.exceptions import AMQPError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from broker.cluster import Cluster
from broker.ports import is_taken
from common.config import Settings
from common.connection import connect
from extras.management import Management
from tests.broker.conftest import ODD_FOLDER, assert_on_loopback_only, drain, processes_in, publish

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("broker.cluster"), pytest.mark.usefixtures("installed")]


@pytest.fixture
def first_port() -> int:
    """One from which on a cluster's ports are free."""
    while True:
        port = random.randrange(5_700, 11_000)
        used = [port + offset + number for offset in (0, 10_000, 10_100, 20_000) for number in range(3)]
        if not any(is_taken("127.0.0.1", each) for each in [*used, port + 19_000]):
            return port


def test_the_loss_of_the_leader(tmp_path: Path, first_port: int) -> None:
    given = Settings(user="reader", password="s3cr#t", vhost="course")
    with Cluster(tmp_path / ODD_FOLDER, given, first_port) as cluster:
        assert assert_on_loopback_only(tmp_path) > 9
        assert [address.port for address in cluster.settings.addresses] == [first_port + number for number in range(3)]
        publish(cluster.nodes[1].settings, 50)
        with Management(cluster.nodes[1].settings) as management:
            found = management.queue("kept").details
            assert sorted(found["members"]) == [f"rabbit-{number}@localhost" for number in (1, 2, 3)]
            leader = next(node for node in cluster.nodes if node.name == found["leader"])
        leader.kill()
        others = replace(
            cluster.settings,
            addresses=tuple(node.settings.addresses[0] for node in cluster.nodes if node is not leader),
        )
        # Until there is a new leader, RabbitMQ may end the connection: "nodedown".
        retrying = Retrying(stop=stop_after_delay(30), retry=retry_if_exception_type(AMQPError), reraise=True)
        assert [int(body) for body in retrying(drain, others)] == list(range(50))
        leader.start()
        connect("test", leader.settings).close()
    assert processes_in(tmp_path) == []
