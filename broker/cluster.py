"""Three private nodes that form a cluster, for what one node cannot show: the loss of a node."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from broker.epmd import Epmd
from broker.node import PrivateNode
from broker.ports import Ports
from common.config import Settings

SIZE = 3
FIRST_PORT = 5681
START_TIMEOUT = 180.0
PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus")


class Cluster:
    """The nodes rabbit-1, rabbit-2 and rabbit-3, with their data in ``directory``; used with ``with``, or start, stop.

    Node by node (``nodes[0].kill()``, ``nodes[0].start()``) they are PrivateNodes like others.
    """

    def __init__(self, directory: Path, settings: Settings | None = None, first_port: int = FIRST_PORT) -> None:
        """Nothing is started yet; ``first_port`` is that of AMQP on the first node, the others' are next to it.

        Management is 10,000 above AMQP, metrics 10,100, Erlang's distribution 20,000, its port mapper 19,000.
        Raises NodeFailure if no rabbitmq-server is installed on this machine.
        """
        self.directory = directory.resolve()
        self._epmd = Epmd(self.directory, first_port + 19_000)
        names = [f"rabbit-{number}" for number in range(1, SIZE + 1)]
        lines = [
            "cluster_formation.peer_discovery_backend = classic_config",
            # The side of a split that has no majority stops, so that it does not accept what will be lost.
            "cluster_partition_handling = pause_minority",
        ]
        lines += [f"cluster_formation.classic_config.nodes.{i} = {name}@localhost" for i, name in enumerate(names, 1)]
        cookie = self._cookie()
        self.nodes = [
            PrivateNode(
                self.directory / name,
                _ports(first_port, number),
                settings=settings,
                plugins=PLUGINS,
                configuration="\n".join(lines),
                name=name,
                cookie=cookie,
                epmd=self._epmd,
            )
            for number, name in enumerate(names)
        ]

    @property
    def settings(self) -> Settings:
        """How a client reaches the cluster: any of its nodes."""
        first = self.nodes[0].settings
        return replace(first, addresses=tuple(node.settings.addresses[0] for node in self.nodes))

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the nodes that are off and wait until all answer and all know of each other. Raises NodeFailure."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._epmd.start()
        try:
            # Together: a node that was not the last to stop waits for the others before it answers.
            self._each(lambda node: node.start(timeout))
            self.nodes[0].ctl("await_online_nodes", str(SIZE), timeout=timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all nodes in good order; their data stays."""
        try:
            self._each(PrivateNode.stop)
        finally:
            self._epmd.stop()

    def _each(self, action: Callable[[PrivateNode], object]) -> None:
        with ThreadPoolExecutor(SIZE) as pool:
            for future in [pool.submit(action, node) for node in self.nodes]:
                future.result()

    def _cookie(self) -> str:
        """The secret by which the nodes know each other; the same as last time, if there was one."""
        for name in range(1, SIZE + 1):
            file = self.directory / f"rabbit-{name}" / ".erlang.cookie"
            if file.is_file():
                return file.read_text(encoding="ascii")
        return secrets.token_hex(16)


def _ports(first: int, number: int) -> Ports:
    amqp = first + number
    return Ports(
        amqp=amqp,
        management=amqp + 10_000,
        prometheus=amqp + 10_100,
        distribution=amqp + 20_000,
    )
