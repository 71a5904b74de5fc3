"""Starts nginx in front of an upstream, with one worker and connections that are kept alive.

python3 tests/bench/front.py PORT UPSTREAM_PORT      until it is interrupted
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Optional

NGINX = """
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/pid;
error_log {folder}/error.log error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /health {{ return 200 ok; }}
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {buffers};
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def nginx() -> Optional[str]:
    """Give the program; None where there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def command(program: str, folder: Path, port: int, upstream: int) -> List[str]:
    """Write its settings into the folder; gives what starts it, in the foreground and with no need of privileges."""
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, upstream=upstream, buffers="off"), "utf-8")
    return [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]


if __name__ == "__main__":
    found = nginx()
    if not found:
        sys.exit("there is no nginx here")
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(command(found, Path(home), int(sys.argv[1]), int(sys.argv[2])), check=True)
