"""A proxy as one would write it with Flask and requests.

python3 tests/bench/peer_flask.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import flask
import peer_shapes as shapes
import requests
from werkzeug.serving import WSGIRequestHandler, make_server

app = flask.Flask(__name__)
UPSTREAM = f"http://127.0.0.1:{sys.argv[2]}"
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=1000))


@app.post("/v1/chat/completions")
def create() -> Any:
    path, asked = shapes.question(flask.request.get_json())
    response = session.post(UPSTREAM + path, json=asked, stream=bool(asked.get("stream")), timeout=600)
    if response.status_code != 200:
        return response.json(), response.status_code
    if not asked.get("stream"):
        return shapes.answer(path, response.json())
    lines = response.iter_lines(chunk_size=None, decode_unicode=True)
    events = (part for line in lines for part in shapes.event(path, line))
    return flask.Response(events, mimetype="text/event-stream")


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # kept alive


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=Handler).serve_forever()
