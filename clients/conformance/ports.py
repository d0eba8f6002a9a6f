"""Fixed ports for the relay and the proxies.

They lie below the range from which the system takes the ports of outgoing connections, so that a port stays free while its
owner is stopped and started again.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()
# Two kits that run at the same time must not try the same ports, whatever seed their runs have.
_random = random.SystemRandom()


def listening_socket(port: int) -> socket.socket:
    """A socket that listens on this port of the loopback address."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(64)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def free_port() -> int:
    """A port that nobody listens on, and that this process has not given out before."""
    last = int(_RANGE.read_text(encoding="ascii").split()[0]) - 1 if _RANGE.exists() else 32_767
    while True:
        port = _random.randint(FIRST, last)
        if port in _given:
            continue
        try:
            listening_socket(port).close()
        except OSError:
            continue
        _given.add(port)
        return port
