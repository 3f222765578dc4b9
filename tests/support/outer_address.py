"""Where others reach this machine."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def outer_address() -> str:
    """An address of this machine that others may reach; the loopback where it has none."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not ipaddress.ip_address(each.address).is_loopback:
                return str(each.address)
    return "127.0.0.1"
