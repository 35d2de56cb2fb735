"""Making a broker of ours accept the user, password and virtual host of the settings.

RabbitMQ creates them when its data folder is empty; this is for settings that were changed later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets

from common.config import Settings


def definitions(settings: Settings) -> str:
    """What ``rabbitmqctl import_definitions`` needs: user, password, virtual host, and all permissions in it.

    The password is hashed. As plain text it would have to be an argument of a command, which everybody on the
    machine can read, or standard input, which the tools of RabbitMQ 4.3 cannot read on a recent Erlang.
    """
    user, vhost = settings.user, settings.vhost
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + settings.password.encode()).digest()
    return json.dumps(
        {
            "users": [
                {
                    "name": user,
                    "password_hash": base64.b64encode(salt + digest).decode(),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "administrator",
                }
            ],
            "vhosts": [{"name": vhost}],
            "permissions": [{"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}],
        }
    )
