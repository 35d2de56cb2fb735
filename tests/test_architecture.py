"""The rules that keep the examples readable one by one: what may import what, and that importing does nothing."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common.config import Settings
from common.connection import connect, server_version
from common.errors import ExitCode
from extras.management import Management

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = {"build", "dist", "node_modules", "venv"}
# What each package may import of ours, besides itself.
ALLOWED = {
    "robust_pika": set(),
    "common": {"robust_pika"},
    "extras": {"common", "robust_pika"},
    "broker": {"common", "extras", "robust_pika"},
    "tour": {"broker", "common", "extras", "robust_pika"},
    "playground": {"broker", "common", "extras", "robust_pika", "tour"},
    "deploy": {"common", "extras", "robust_pika"},
}
# The lessons in plain pika.
CORE = {"send_and_receive", "work_queue", "publish_subscribe", "routing", "topics", "rpc", "publisher_confirms"}
# What requirements.txt installs, by the names of its modules.
EVERYWHERE = {"pika", "dotenv", "tenacity", "httpx", "rich", "markdown_it", "filelock", "psutil", "sqlalchemy"}


def ours(folder: Path = ROOT) -> Iterator[Path]:
    """Every Python file of the repository, tests aside."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not (path.name.startswith((".", "_")) or path.name.endswith(".egg-info") or path.name in NOT_OURS):
                yield from ours(path)
        elif path.suffix == ".py" and ROOT / "tests" not in path.parents:
            yield path


FILES = list(ours())
TOPOLOGIES = sorted(path.parent for path in FILES if path.name == "topology.py")
# Lesson 1 declares its queue in its scripts.
EXAMPLES = sorted([ROOT / "send_and_receive", *TOPOLOGIES])
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
FOLDERS = sorted({path.parent for path in FILES})

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=[str(path.relative_to(ROOT)) for path in FOLDERS])


def files_in(folder: Path) -> list[Path]:
    return [path for path in FILES if path.parent == folder]


def roots_of(module: ast.Module) -> set[str]:
    """The first parts of the names of the modules that it imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write relative imports in full"
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


def test_there_is_something_to_check() -> None:
    assert len(EXAMPLES) >= 3
    assert "common/config.py" in NAMES


@each_folder
def test_imports_only_go_one_way(folder: Path) -> None:
    for path in files_in(folder):
        parts = path.relative_to(ROOT).parts
        packages = {file.relative_to(ROOT).parts[0] for file in FILES} | {"tests"}
        roots = roots_of(ast.parse(path.read_text(encoding="utf-8")))
        allowed = {parts[0]} | ALLOWED.get(parts[0], packages - {"tests"})
        if path.parent in EXAMPLES:
            # An example reads by itself: common, and the files beside it; after the core, the library and the extras.
            allowed = {"common"} if parts[0] in CORE else {"common", "extras", "robust_pika"}
            others = {file.stem for file in FILES if file.parent in EXAMPLES and file.parent != path.parent}
            beside = {file.stem for file in path.parent.glob("*.py")}
            assert not roots & (others - beside), f"{path} imports another example's file"
        assert not (roots & packages) - allowed, path
        assert "tests" not in roots, path


def test_the_inside_of_the_library_is_private() -> None:
    """Only the library imports `_io`, and the benchmarks, which measure what its parts are worth."""
    for path in FILES:
        if path.relative_to(ROOT).parts[0] not in ("robust_pika", "benchmarks"):
            assert "robust_pika._io" not in path.read_text(encoding="utf-8"), path


def for_packages(node: ast.stmt) -> bool:
    """Whether it is ``with packages_for(__file__):`` with nothing but imports in it."""
    match node:
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Name(id="packages_for")))], body=body):
            return all(isinstance(part, ast.Import | ast.ImportFrom) for part in body)
    return False


# Their requirements are installed by the command that starts them.
WITH_A_COMMAND = {"benchmarks": "bench", "playground": "playground"}


@each_folder
def test_what_may_be_missing_is_imported_so_that_it_is_told(folder: Path) -> None:
    """Packages of the example's own requirements.txt are imported under packages_for, and no others are used."""
    for path in files_in(folder):
        if command := WITH_A_COMMAND.get(path.relative_to(ROOT).parts[0]):
            assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            continue
        module = ast.parse(path.read_text(encoding="utf-8"))
        optional = {
            name
            for node in module.body
            if for_packages(node)
            for name in roots_of(ast.Module(body=node.body, type_ignores=[]))  # type: ignore[attr-defined]
        }
        packages = {item.name for item in ROOT.iterdir() if item.is_dir()}
        beside = {file.stem for file in path.parent.glob("*.py")}
        known = {*sys.stdlib_module_names, *EVERYWHERE, *packages, *beside}
        assert roots_of(module) - known == optional, path
        assert not optional or (path.parent / "requirements.txt").is_file(), path


def test_the_tests_install_what_any_example_needs() -> None:
    told = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    for path in sorted({file.parent / "requirements.txt" for file in FILES if file.parent != ROOT}):
        if path.is_file():
            # What cannot be installed everywhere is named in a comment, with the reason.
            name = path.relative_to(ROOT).as_posix()
            assert re.search(rf"^(-r {name}$|# .*{name}: \w)", told, re.MULTILINE), name


@each_folder
def test_a_file_only_defines(folder: Path) -> None:
    for path in files_in(folder):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in module.body:
            match node:
                case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    pass
                case ast.Assign() | ast.AnnAssign():
                    pass
                case ast.Expr(value=ast.Constant(value=str())):
                    pass
                case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    pass
                case ast.Expr(value=ast.Call(args=[ast.Call(func=ast.Attribute(attr="NullHandler"))])):
                    # https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library
                    pass
                case ast.With() if for_packages(node):
                    pass
                case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                    assert node is module.body[-1], f"line {node.lineno}: the guard comes last"
                case _ if path.name == "__main__.py" and node is module.body[-1]:
                    pass
                case _:
                    pytest.fail(
                        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node).splitlines()[0]!r} does something"
                    )


# Run in a process of its own: imports each file in a fork, and refuses what an import has no business to do.
IMPORTER = """
import importlib, importlib.util, os, signal, sys, threading, traceback

# What nearly all of them import, so that not every fork has to; our own part of it is among the files, too.
for name in sys.argv[1].split(","):
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.exec",
                 "os.posix_spawn", "os.system", "os.mkdir", "os.remove", "os.rename", "os.putenv"):
        raise SystemExit(f"importing it raised {event} {arguments!r}")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        if "__pycache__" not in str(arguments[0]):
            raise SystemExit(f"importing it opened {arguments[0]} to write")

def load(path):
    sys.path.insert(0, os.path.dirname(path))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    sys.addaudithook(watch)
    spec = importlib.util.spec_from_file_location("imported_by_a_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert threading.active_count() == 1, threading.enumerate()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

for path in sys.argv[2:]:
    child = os.fork()
    if not child:
        code = 0
        try:
            load(path)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(path, end.code, sep=": ", file=sys.stderr)
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        # Without taking down all that was imported: that takes longer than the rest.
        os._exit(code)
    print(path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
PRELOADED = (
    "robust_pika.consumer,extras.management,robust_pika.publisher,"
    "httpx,pika,tenacity,sqlalchemy,aio_pika,rstream,paho.mqtt.client,stomp,starlette.applications"
)


def test_importing_does_nothing() -> None:
    # __main__.py is a program: it is there to be run.
    files = [str(path) for path in FILES if path.name != "__main__.py"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORTER, PRELOADED, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    codes = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert list(codes) == files, "something was printed"
    wrong = {path: code for path, code in codes.items() if int(code) not in (0, ExitCode.NOT_INSTALLED)}
    assert wrong == {}, done.stderr
    # What needs a package that is not installed says so, and nothing else is said.
    missing = [path for path, code in codes.items() if int(code) == ExitCode.NOT_INSTALLED]
    told = done.stderr.splitlines()
    assert len(told) == len(missing), done.stderr
    assert all("is not installed: pip install -r" in line for line in told)


# Whose queue an example has, if it shows another client at work on the queue of another example.
BORROWED = {"asyncio_client": "work_queue", "robust_clients": "work_queue"}


@contextmanager
def declaring(client: str, settings: Settings) -> Iterator[Callable[..., object]]:
    """What calls a declare() that is written for this client, with the argument that it wants first."""
    if client == "aio_pika":
        aio_pika = pytest.importorskip("aio_pika")

        async def call(function: Callable[..., Any], names: list[str]) -> None:
            address = settings.addresses[0]
            connection = await aio_pika.connect(
                host=address.host,
                port=address.port,
                login=settings.user,
                password=settings.password,
                virtualhost=settings.vhost,
            )
            async with connection:
                await function(await connection.channel(), *names)

        yield lambda function, *names: asyncio.run(call(function, list(names)))
        return
    with connect("tests.architecture", settings) as connection:
        if client == "rabbitmq_amqp_python_client":
            library = pytest.importorskip(client)
            if server_version(connection) < (4, 0):
                pytest.skip("RabbitMQ's AMQP 1.0 client needs RabbitMQ 4.0 or later")
            address = settings.addresses[0]
            uri = library.AmqpUri(
                host=address.host,
                port=address.port,
                user=settings.user,
                password=settings.password,
                vhost=settings.vhost,
            )
            other = library.Environment(amqp_uri=uri).connection()
            other.dial()
            yield lambda function, *names: function(other.management(), *names)
            other.close()
            return
        channel = connection.channel()
        yield lambda function, *names: function(channel, *names)


def topology(example: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"topology_of_{example.name}", example / "topology.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as end:
        if end.code != ExitCode.NOT_INSTALLED:
            raise
        pytest.skip(f"what {example.relative_to(ROOT)} needs is not installed")
    return module


@pytest.mark.parametrize("example", TOPOLOGIES, ids=[str(path.relative_to(ROOT)) for path in TOPOLOGIES])
def test_names_begin_with_their_folder(example: Path, settings: Settings, management: Management) -> None:
    """Each function of topology.py is called on a broker, twice, and what it made is looked at."""
    module = topology(example)
    declarations = [
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("declare") and function.__module__ == module.__name__
    ]
    assert declarations, "topology.py has no declare()"
    first = next(iter(inspect.signature(declarations[0]).parameters.values())).annotation
    with declaring(first.__module__.partition(".")[0], settings) as call:
        for function in [*declarations, *declarations]:
            # After the channel come names and numbers, if anything; what has a default keeps it.
            more = list(inspect.signature(function).parameters.values())[1:]
            call(function, *(1 if item.annotation is int else "name" for item in more if item.default is item.empty))
        queues, exchanges = management.queues(), management.exchanges()
    prefix = tuple(f"{name}." for name in (example.name, BORROWED.get(example.name)) if name)
    made = [exchange.name for exchange in exchanges if exchange.name and not exchange.name.startswith("amq.")]
    assert queues or made, "declare() declares nothing"
    assert [name for name in made if not name.startswith(prefix)] == []
    for queue in queues:
        # RabbitMQ makes up the names of temporary queues; they belong to one connection, so they meet nobody.
        assert queue.name.startswith(prefix) or (queue.exclusive and queue.name.startswith("amq.gen-")), queue
        assert queue.durable or queue.exclusive, f"RabbitMQ 4.3 refuses {queue}"
