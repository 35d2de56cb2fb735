"""Serve the screen over the counter: a web page that shows what is ready, live, through STOMP over WebSocket.

python protocols/stomp/show_screen.py
python protocols/stomp/show_screen.py --port 8000    at this port, rather than at any that is free

The page asks for user and password itself; they go to RabbitMQ, never to this program. Its pair is cook.py.
"""

import http.server
import json
from functools import partial
from http import HTTPStatus
from pathlib import Path

import topology

from common import console
from common.config import Address, Settings
from common.errors import ExitCode, Failure

FOLDER = Path(__file__).resolve().parent / "screen"
FILES = {"/": "index.html", "/screen.js": "screen.js", "/screen.css": "screen.css"}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class PortTaken(Failure):
    """Another program has the port."""

    exit_code = ExitCode.CONFIG


class Handler(http.server.BaseHTTPRequestHandler):
    """Three files, and where RabbitMQ is."""

    def __init__(self, settings: Settings, *more: object) -> None:
        self.settings = settings
        super().__init__(*more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer a browser."""
        assert isinstance(self.server, http.server.HTTPServer)
        port = self.server.server_port
        # A foreign page whose host name leads here must not read what we serve.
        if self.headers.get("Host") not in (f"localhost:{port}", f"127.0.0.1:{port}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, f"open http://localhost:{port}/")
        elif self.path == "/settings.json":
            self._answer(json.dumps(where_to(self.settings)).encode(), "application/json")
        elif name := FILES.get(self.path):
            self._answer((FOLDER / name).read_bytes(), TYPES[Path(name).suffix])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        # Nothing is loaded from elsewhere, and the page talks to us and to RabbitMQ alone.
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
            f"connect-src 'self' {origin(self.settings)}"
        )
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def origin(settings: Settings) -> str:
    """The broker's WebSocket port, as a URL without a path."""
    scheme = "wss" if settings.tls else "ws"
    return f"{scheme}://{Address(settings.addresses[0].host, settings.web_stomp_port)}"


def where_to(settings: Settings) -> dict[str, str]:
    """What the page needs to know; the password is not in it."""
    return {
        "url": f"{origin(settings)}/ws",
        "vhost": settings.vhost,
        "user": settings.user,
        "destination": topology.READY,
    }


def main() -> None:
    parser = console.parser(__doc__)
    parser.add_argument(
        "--port", type=console.whole(0, 65535), default=0, metavar="P", help="0, the default: a free one"
    )
    port = parser.parse_args().port
    try:
        # On loopback: only this machine can reach it.
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, Settings.load()))
    except OSError as error:
        raise PortTaken(f"port {port} cannot be had ({error.strerror}); choose another: --port") from None
    with server:
        console.say(f" [*] The screen is at http://localhost:{server.server_port}/. To exit press CTRL+C")
        server.serve_forever()


if __name__ == "__main__":
    console.run(main)
