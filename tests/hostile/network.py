"""Programs that talk to somebody. A visit is seen at the listeners, whatever the program says."""

import os

from hostile.table import attack
from hostile.tools import attempt, call, ctypes, each, first_of, libc, struct

# fmt: off


@attack()
def asks_the_proxy(at):
    """Asks the proxy itself, which would let it in as one of this machine."""
    import urllib.request

    return urllib.request.urlopen(f"http://127.0.0.1:{at.port}/health", timeout=2).read().decode()


@attack()
def connects_by_tcp(at):
    """Connects to a listener over IPv4 and IPv6, at every address that is ours."""
    import socket

    places = [("127.0.0.1", at.tcp), ("0.0.0.0", at.tcp), ("::1", at.tcp6), ("::ffff:127.0.0.1", at.tcp)]
    return first_of(lambda place: bool(socket.create_connection(place, 1)), *places)


@attack()
def connects_by_the_kernels_own_calls(at):
    """Connects without Python's socket module."""
    descriptor = call("socket", 2, 1, 0)
    address = struct.pack("=HH4s8x", 2, at.tcp >> 8 | (at.tcp & 255) << 8, bytes([127, 0, 0, 1]))
    return call("connect", descriptor, address, 16) == 0


@attack()
def sends_datagrams(at):
    """Sends over UDP, connected or not."""
    import socket

    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("127.0.0.1", at.udp))


@attack()
def sends_with_the_first_packet(at):
    """Connects by sending (TCP fast open), which a rule for connect does not see."""
    import socket

    return socket.socket().sendto(b"hello", socket.MSG_FASTOPEN, ("127.0.0.1", at.tcp))


@attack()
def connects_by_a_path(at):
    """Connects to a Unix socket that has a name in the file system."""
    import socket

    return not socket.socket(socket.AF_UNIX).connect(at.unix)


@attack()
def connects_by_an_abstract_name(at):
    """Connects to a Unix socket that has a name without a file."""
    import socket

    return not socket.socket(socket.AF_UNIX).connect("\0" + at.abstract)


@attack()
def readdresses_a_pair(at):
    """Makes a pair of datagram sockets, which needs no leave, and addresses one end to somebody else."""
    import socket

    def sent(kind, address):
        one, _ = socket.socketpair(socket.AF_UNIX, kind)
        return one.sendto(b"hello", address)

    def joined(kind, address):
        one, _ = socket.socketpair(socket.AF_UNIX, kind)
        one.connect(address)
        return one.send(b"hello")

    return each(*[
        lambda act=act, kind=kind, address=address: act(kind, address)
        for act in (sent, joined) for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
        for address in (at.dgram, "\0" + at.abstract_dgram)
    ])


@attack(told=False)
def reuses_a_stream_pair(at):
    """Uses the one kind of pair that asyncio needs: connects it anew, and binds it to a name."""
    import socket

    for act in (lambda one: one.connect(at.unix), lambda one: one.connect("\0" + at.abstract),
                lambda one: one.sendto(b"hello", at.dgram), lambda one: one.bind(os.path.join(at.open, at.mark))):
        for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM | socket.SOCK_NONBLOCK):
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            other.close()
            attempt(act, one)


@attack()
def opens_a_socket_of_any_family(at):
    """Tries all families: netlink, packet, vsock, the kernel's ciphers, Bluetooth, and whatever there is."""
    opened = []
    for family in range(64):
        for kind in (1, 2, 3, 4, 5):
            descriptor = libc.socket(family, kind, 0)
            if descriptor >= 0:
                opened.append((family, kind))
                os.close(descriptor)
    return opened


@attack()
def opens_special_protocols(at):
    """Asks for multipath TCP, SCTP, raw and ICMP sockets, and a netlink listing of the addresses."""
    import socket

    return each(
        lambda: socket.socket(2, 1, 262).connect(("127.0.0.1", at.tcp)),
        lambda: socket.socket(2, 1, 132), lambda: socket.socket(2, 3, 1), lambda: socket.socket(2, 2, 1),
        lambda: socket.socket(16, 3, 0).sendto(struct.pack("=IHHIIB7x", 24, 22, 0x301, 1, 0, 0), (0, 0)),
    )


@attack()
def opens_vsock_and_ciphers(at):
    """Talks to the hypervisor, or has the kernel encrypt."""
    import socket

    return each(
        lambda: socket.socket(40, 1, 0).connect((2, 1)),
        lambda: socket.socket(40, 1, 0).bind((0xFFFFFFFF, 0xFFFFFFFF)),
        lambda: socket.socket(38, 5, 0).bind(("hash", "sha256")),
    )


@attack()
def listens(at):
    """Waits for visitors, on a port and on an abstract name."""
    import asyncio
    import socket

    def served():
        if not asyncio.run(asyncio.start_server(print, "127.0.0.1", 0)).sockets:
            raise PermissionError

    return each(lambda: socket.create_server(("127.0.0.1", 0)),
                lambda: socket.socket(socket.AF_UNIX).bind("\0" + at.mark), served)


@attack(only="x86_64", ends=("Crashed",))
def calls_as_a_32_bit_program(at):
    """Calls by `int 0x80`, whose numbers mean other things, so that a filter of numbers sees nothing."""
    import mmap

    low = mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, 7)
    where = ctypes.addressof(ctypes.c_char.from_buffer(low))
    low[:12] = bytes.fromhex("5389f889f387cacd805bc3cc")  # (nr, a, b, c) into eax, ebx, ecx, edx
    gate = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(where)
    address = struct.pack("=HH4s8x", 2, at.tcp >> 8 | (at.tcp & 255) << 8, bytes([127, 0, 0, 1]))
    low[4096:4112], low[4200:4212] = address, struct.pack("=III", 2, 1, 0)
    path = at.config.encode() + b"\0"
    low[4300 : 4300 + len(path)] = path
    descriptor = gate(102, 1, where + 4200, 0)  # socketcall(SYS_SOCKET)
    low[4220:4232] = struct.pack("=III", descriptor & 0xFFFFFFFF, where + 4096, 16)
    connected = descriptor >= 0 and gate(102, 3, where + 4220, 0) == 0
    opened = gate(5, where + 4300, 0, 0)
    return connected or (opened >= 0 and os.read(opened, 10000).decode())


@attack(only="x86_64", tame="a kernel without x32 knows no such calls", ends=("Crashed",))
def calls_by_the_other_numbers(at):
    """Calls by the numbers of x32, which a filter that knows only its own lets pass."""
    return each(
        lambda: call(0x40000000 | 41, 2, 1, 0),
        lambda: call(0x40000000 | 257, -100, at.config.encode(), 0, 0),
        lambda: call(0x40000000 | 39),
    )


@attack()
def passes_descriptors(at):
    """Sends a descriptor away through an abstract socket, so that somebody else holds it after the end."""
    import array
    import socket

    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
    return one.sendmsg([b"hello"], rights, 0, "\0" + at.abstract_dgram)
