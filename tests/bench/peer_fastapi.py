"""A proxy as one would write it with FastAPI and httpx.

python3 tests/bench/peer_fastapi.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from typing import Any, AsyncIterator, Dict

import fastapi
import httpx
import peer_shapes as shapes
import uvicorn
from fastapi.responses import JSONResponse, StreamingResponse

app = fastapi.FastAPI()
UPSTREAM = f"http://127.0.0.1:{sys.argv[2]}"
limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
client = httpx.AsyncClient(timeout=600, limits=limits, trust_env=False)


@app.post("/v1/chat/completions")
async def create(chat: Dict[str, Any]) -> Any:
    path, asked = shapes.question(chat)
    if asked.get("stream"):
        return StreamingResponse(streamed(path, asked), media_type="text/event-stream")
    response = await client.post(UPSTREAM + path, json=asked)
    if response.status_code != 200:
        return JSONResponse(response.json(), response.status_code)
    return shapes.answer(path, response.json())


async def streamed(path: str, asked: Dict[str, Any]) -> AsyncIterator[str]:
    async with client.stream("POST", UPSTREAM + path, json=asked) as response:
        async for line in response.aiter_lines():
            for part in shapes.event(path, line):
                yield part


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4096)
