"""Addresses of clients: who stands behind a proxy that is trusted, and who shares a network."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Iterable, List, Optional, Sequence, Tuple, Union

if TYPE_CHECKING:
    Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

_MAPPED = bytes(10) + b"\xff\xff"  # how an IPv6 address begins that is an IPv4 one
_LOOPBACK = bytes(15) + b"\x01"
_WITH_PORT = re.compile(r"\[([^]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)


def networks(texts: Iterable[str]) -> Tuple[Network, ...]:
    """Read a list of addresses and networks; raises ValueError for what is neither."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Give the address a request comes from: the peer's, or what trusted proxies say of theirs.

    `forwarded` are the values of X-Forwarded-For, a line each. Each proxy appends whom it was asked by, so
    the list is read from its right end, and believed as far as whoever said it is trusted: the first one
    who is not is the client. What that client has put into the list itself is never looked at. A trusted
    proxy may append what is no address ("unknown"): nobody vouches for what stands left of it, and the
    request counts as that proxy's own.
    """
    client = peer
    for hop in _hops(forwarded):
        address = _address(client)
        if address is None or not any(address in network for network in trusted):
            break
        said = _address(hop)
        if said is None:
            break
        client = str(said)
    return client


def _hops(forwarded: Sequence[str]) -> List[str]:
    """Give the members of the list, the nearest to us first."""
    hops = [hop.strip(' \t"') for hop in ",".join(forwarded).split(",")]
    return [hop for hop in reversed(hops) if hop]


def _address(text: str) -> Optional[Address]:
    """Read an address, which may bear a port; None for what is none."""
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(match.group(1) or match.group(2) if match else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def neighbourhood(address: str) -> str:
    """Name whom an address cannot be told from: itself, in IPv6 its /64, which is one subscriber's to choose from."""
    packed = _packed(address) if ":" in address else b""
    if not packed:
        return address
    return socket.inet_ntoa(packed) if len(packed) == 4 else f"{packed[:8].hex()}/64"


def is_loopback(address: str) -> Optional[bool]:
    """Tell whether only this machine can reach an address; None for what is none."""
    packed = _packed(address)
    return packed == _LOOPBACK or (len(packed) == 4 and packed[0] == 127) if packed else None


def _packed(address: str) -> bytes:
    """Give the bytes of an address, those of an IPv4 one if it stands for that; none for what is no address."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        packed = socket.inet_pton(family, address.partition("%")[0])
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed
