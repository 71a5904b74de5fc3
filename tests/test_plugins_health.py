"""Health: told without a token, without an upstream, and in two shapes."""

from __future__ import annotations

import json

import pytest

from plugins import VERSION, Request
from plugins.health import Health
from providers import Provider
from providers._http import Fields


class Untouched(Provider):
    """An upstream that must not be asked anything."""

    def __getattribute__(self, name):
        raise AssertionError(f"health looked at {name}")


def tell(accept: str = ""):
    plugin = Health({}, object.__new__(Untouched))
    fields = [("Accept", accept)] if accept else []
    return plugin.routes()["GET /health"](Request("GET", "/health", Fields(fields)))


@pytest.mark.parametrize("accept", ["", "*/*", "text/html,application/xhtml+xml", "text/plain"])
def test_health_is_a_word(accept):
    response = tell(accept)
    assert (response.status, response.body) == (200, b"ok")
    assert dict(response.headers)["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("accept", ["application/json", "text/html, Application/JSON;q=0.9"])
def test_health_is_an_object_for_programs(accept):
    response = tell(accept)
    told = json.loads(response.body)
    assert dict(response.headers)["Content-Type"] == "application/json"
    assert (told["status"], told["version"]) == ("ok", VERSION)
    assert 0 <= told["uptime_s"] < 60
    assert set(told) == {"status", "version", "uptime_s"}
