"""With this folder on PYTHONPATH a Python process has no network but the machine itself.

Python reads it before anything else. Whatever asks for a name or an address elsewhere is refused, as if the cable
were out, and is noted in the file that DENIED names. An audit hook cannot be taken away again, needs no rights, and
holds in the process's Python children as well.
"""

import errno
import ipaddress
import os
import sys

NAMED = {"localhost", "localhost.localdomain", "ip6-localhost", ""}


def here(host) -> bool:
    if host is None or isinstance(host, bytes):
        host = (host or b"").decode(errors="replace")
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return str(host) in NAMED
    return address.is_loopback or address.is_unspecified


def refuse(event: str, args: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if not isinstance(address, tuple):
            return  # a socket of this machine's file system; or one that is connected already
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if here(host):
        return
    with open(os.environ["DENIED"], "a") as denied:
        denied.write(f"{event} {host}\n")
    raise OSError(errno.ENETUNREACH, "the network is out of reach")


sys.addaudithook(refuse)
