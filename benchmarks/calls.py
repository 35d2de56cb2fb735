"""Remote procedure calls: robust_pika's client, the tutorial's way, and aio-pika's pattern."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks import rpc_rate
from benchmarks.measure import Contender, Goal, Lab
from benchmarks.publishers import url
from common.config import Settings

SINGLE = "robust_pika.RpcClient, one call at a time"
MANY = f"robust_pika.RpcClient, {rpc_rate.IN_FLIGHT} in flight"
NEW = "the tutorial's way, a new client for each call"
KEPT = "the tutorial's way, one client kept"
PATTERN = "aio-pika's RPC, one call at a time"
PATTERN_MANY = f"aio-pika's RPC, {rpc_rate.IN_FLIGHT} in flight"


def run(lab: Lab) -> list[Goal]:
    """All of them in turn. The servers of the first two ways are processes."""
    table = lab.table("rpc", "Remote procedure calls: fib(5)", "calls/s", MANY)
    settings = lab.settings
    contenders = [
        Contender(SINGLE, lambda n: n / rpc_rate.library_client(settings, n, 1)),
        Contender(MANY, lambda n: n / rpc_rate.library_client(settings, n, rpc_rate.IN_FLIGHT), pace=1500),
        Contender(NEW, lambda n: n / rpc_rate.tutorial_new_client(settings, n), pace=60),
        Contender(KEPT, lambda n: n / rpc_rate.tutorial_kept_client(settings, n)),
    ]
    if lab.has("aio_pika"):
        contenders += [
            Contender(PATTERN, lambda n: pattern(settings, n, 1)),
            Contender(PATTERN_MANY, lambda n: pattern(settings, n, rpc_rate.IN_FLIGHT), pace=1000),
        ]
    with rpc_rate.servers(lab.environ):
        lab.contest(table, contenders)
    table.ours = SINGLE
    single = table.ratio(NEW), table.ratio(KEPT)
    table.ours = MANY
    return [
        Goal("rpc, one call at a time: to the tutorial's client as it is run", 3, single[0]),
        Goal("rpc, one call at a time: to the tutorial's client, kept", 1, single[1]),
        Goal("rpc, 100 calls in flight: to the tutorial's client as it is run", 10, table.ratio(NEW)),
        Goal("rpc, 100 calls in flight: to the tutorial's client, kept", 10, table.ratio(KEPT)),
    ]


def pattern(settings: Settings, calls: int, in_flight: int) -> float:
    """The seconds that aio-pika's RPC takes; its server runs here as well, which spares it a process."""
    import aio_pika  # noqa: PLC0415
    from aio_pika.patterns import RPC  # noqa: PLC0415

    async def serve(number: int) -> int:
        return rpc_rate.fib(number)

    async def run() -> float:
        async with await aio_pika.connect(url(settings)) as server, await aio_pika.connect(url(settings)) as client:
            served = await RPC.create(await server.channel())
            # Durable, because RabbitMQ 4.3 refuses it otherwise.
            await served.register("benchmarks.fib", serve, durable=True)
            asking = await RPC.create(await client.channel())
            room = asyncio.Semaphore(in_flight)

            async def ask() -> None:
                async with room:
                    answer = await asking.call("benchmarks.fib", kwargs={"number": rpc_rate.NUMBER})
                    if answer != rpc_rate.ANSWER:
                        sys.exit(f"aio-pika's RPC answered {answer}")

            start = time.perf_counter()
            await asyncio.gather(*(ask() for _ in range(calls)))
            return time.perf_counter() - start

    return asyncio.run(run())
