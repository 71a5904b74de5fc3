"""Peers that do on a real socket what no well-behaved server or client would; of the standard library alone."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

RESET = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER: close with a reset
CERTIFICATE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
    "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
)
PATIENCE = 20.0  # seconds after which a peer gives up: a test has failed then


class Scripted:
    """A server on a free port that runs `script(connection)` for each connection; a context manager.

    What the script raises is in `troubles`, but for the end of a connection. The socket is closed behind it.
    """

    def __init__(self, script: Callable[[Any], object], context: Optional[ssl.SSLContext] = None) -> None:
        self.script = script
        self.context = context
        self.accepted = 0
        self.troubles: List[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._open: Dict[threading.Thread, socket.socket] = {}
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with socket.socket() as waking, contextlib.suppress(OSError):
            waking.connect(("127.0.0.1", self.port))
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for thread, connection in self._open.items():
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # under the TLS that its thread may be in
            thread.join(PATIENCE)
        assert self.troubles == []

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            self.accepted += 1
            connection.settimeout(PATIENCE)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self._open[thread] = connection
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self.context is None:
                    self.script(connection)
                else:
                    with self.context.wrap_socket(connection, server_side=True) as secured:
                        self._open[threading.current_thread()] = secured
                        self.script(secured)
        except OSError:
            pass
        except BaseException as error:
            self.troubles.append(error)


def read_head(connection: Any) -> bytes:
    """Read up to the end of a head, and not a byte further; b"" when the other end closes instead."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        data += byte
    return data


def read_exactly(connection: Any, size: int) -> bytes:
    """Read so many bytes, or fewer at the end."""
    data = b""
    while len(data) < size:
        block = connection.recv(min(size - len(data), 65536))
        if not block:
            break
        data += block
    return data


def read_all(connection: Any) -> bytes:
    """Read to the end, which may be a reset."""
    data = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for block in iter(lambda: connection.recv(65536), b""):
            data += block
    return data


def closed_port() -> int:
    """Give a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def certificate(folder: Path) -> Optional[Path]:
    """Make a certificate for localhost that is its own root, with its key in one file; None without openssl."""
    command = shutil.which("openssl")
    if command is None:
        return None
    path = folder / "localhost.pem"
    made = subprocess.run(
        [command, *CERTIFICATE.split(), "-keyout", str(folder / "key.pem"), "-out", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        return None
    path.write_text(path.read_text() + (folder / "key.pem").read_text())
    return path


def server_context(pem: Path) -> ssl.SSLContext:
    """Give the server's side of TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pem))
    return context
