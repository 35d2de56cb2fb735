"""The secrets of a deployment: made at random, once, known to nobody but the cluster, and never printed."""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path

from common.console import say
from deploy.kubectl import MANAGER, NAMESPACE, Kubectl, need, output_of

USER = "course"
DAYS = 825
"""How long the certificate is good for; some programs refuse one of more."""


def make_missing(kubectl: Kubectl, *, tls: bool) -> None:
    """Make the Secrets that are not there yet; one that is there stays, whoever made it."""
    wanted = {"rabbitmq-credentials": login, "rabbitmq-erlang-cookie": cookie}
    if tls:
        wanted["rabbitmq-tls"] = certificate
    for name, make in wanted.items():
        if kubectl.read("secret", name) is None:
            _create(kubectl, name, make())
            say(f"made the Secret {name}")


def login() -> dict[str, str]:
    """The user that RabbitMQ is made with, and a password."""
    return {"username": USER, "password": secrets.token_urlsafe(24)}


def cookie() -> dict[str, str]:
    """The secret by which the nodes know each other."""
    return {"cookie": secrets.token_hex(32)}


def certificate() -> dict[str, str]:
    """A certificate for RabbitMQ, its key, and the certificate of the authority, made for this one, that has signed it.

    The authority's key is forgotten. Needs the openssl command.
    """
    need("openssl", "it makes RabbitMQ's certificate; or bring your own as the Secret rabbitmq-tls")
    names = [
        "rabbitmq",
        f"rabbitmq.{NAMESPACE}",
        f"rabbitmq.{NAMESPACE}.svc",
        f"rabbitmq.{NAMESPACE}.svc.cluster.local",
    ]
    # For who comes by `kubectl port-forward`, and for one node by its name.
    names += ["localhost", f"*.rabbitmq-nodes.{NAMESPACE}.svc.cluster.local"]
    with tempfile.TemporaryDirectory(prefix="certificate.") as folder:
        place = Path(folder)
        extensions = place / "extensions"
        extensions.write_text(
            f"subjectAltName = {','.join(f'DNS:{name}' for name in names)}\n"
            "keyUsage = critical, digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth\n"
            "basicConstraints = critical, CA:false\n"
            # Not every openssl adds these by itself, and Python 3.13 and later want the second.
            "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n",
            encoding="ascii",
        )

        def openssl(*arguments: str) -> None:
            output_of(["openssl", *arguments])

        def path(name: str) -> str:
            return str(place / name)

        new = ("req", "-newkey", "rsa:2048", "-nodes", "-sha256")
        openssl(
            *(*new, "-x509", "-days", str(DAYS), "-subj", "/CN=RabbitMQ by example"),
            *("-addext", "keyUsage = critical, keyCertSign, cRLSign"),
            *("-keyout", path("ca.key"), "-out", path("ca.crt")),
        )
        openssl(*new, "-subj", "/CN=rabbitmq", "-keyout", path("tls.key"), "-out", path("tls.csr"))
        openssl(
            *("x509", "-req", "-sha256", "-days", str(DAYS), "-in", path("tls.csr"), "-extfile", str(extensions)),
            *("-CA", path("ca.crt"), "-CAkey", path("ca.key"), "-CAcreateserial", "-out", path("tls.crt")),
        )
        return {name: (place / name).read_text(encoding="ascii") for name in ("tls.crt", "tls.key", "ca.crt")}


def _create(kubectl: Kubectl, name: str, texts: dict[str, str]) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": NAMESPACE},
        },
        "type": "kubernetes.io/tls" if "tls.key" in texts else "Opaque",
        "stringData": texts,
    }
    # By standard input: a command's arguments can be seen by everybody on the machine.
    kubectl.here("create", "--field-manager", MANAGER, "--filename", "-", stdin=json.dumps(secret))
