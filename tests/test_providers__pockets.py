"""What is promised of `providers/_pockets.py`: own words pass between two of one dialect, and no further."""

from __future__ import annotations

import pytest

from providers import PAUSE, Call, Pocket, Provider, UpstreamError
from providers._events import handing_back
from providers._pockets import bearing, for_provider, pocket_of

BODY = {"model": "a/m", "new": True}


class Reader(Provider):
    reads = ("tongue",)


def asked(pocket, **more):
    return Call({"model": "a/m", "messages": [], "_tongue": pocket, **more})


def test_who_reads_a_dialect_gets_its_pocket_and_its_own_name_for_the_model():
    pocket = Pocket(BODY)
    pocket.losses["new"], pocket.musts["tools[0]"] = "not known", "hosted"
    call = for_provider(asked(pocket), Reader("a", {}), "m")
    assert pocket_of(call, "tongue") is pocket
    assert call.model == "m"
    assert call.scope.warnings == {}


def test_who_does_not_read_it_gets_none_and_what_is_lost_is_told():
    pocket = Pocket(BODY)
    pocket.losses["new"] = "not known"
    call = for_provider(asked(pocket), Provider("b", {}), "m")
    assert pocket_of(call, "tongue") is None
    assert "_tongue" not in call.chat
    assert call.scope.warnings == {"new": "not known"}


def test_what_must_not_be_lost_is_a_refusal():
    pocket = Pocket(BODY)
    pocket.musts["tools[0]"] = "a hosted tool"
    with pytest.raises(UpstreamError, match="a hosted tool") as caught:
        for_provider(asked(pocket), Provider("b", {}), "m")
    assert (caught.value.status, caught.value.param, caught.value.provider) == (400, "tools[0]", "b")


def test_a_pocket_goes_when_more_than_the_model_changes():
    call = asked(Pocket(BODY), temperature=1)
    assert pocket_of(call.asking(model="x"), "tongue")
    assert pocket_of(call.asking(temperature=None), "tongue") is None
    assert pocket_of(call.asking(messages=[]), "tongue") is None
    assert call.asking(messages=[]).model == "a/m"


def test_what_a_client_wrote_under_a_pockets_name_is_no_pocket():
    assert pocket_of(asked({"body": {}}), "tongue") is None


def test_each_part_bears_the_events_it_was_made_of():
    def translate(events):
        for event in events:
            if not event:
                yield PAUSE
            elif event["n"] in (2, 3):
                yield {"choices": [event["n"]]}
                yield {"choices": [event["n"], "more"]}

    events = [{"n": 1}, {"n": 2}, PAUSE, {"n": 1}, PAUSE, PAUSE, {"n": 3}, {"n": 4}]
    assert list(bearing("tongue", (event for event in events), translate)) == [
        {"choices": [2], "_tongue": [{"n": 1}, {"n": 2}]},
        {"choices": [2, "more"]},
        PAUSE,
        {"_tongue": [{"n": 1}]},
        PAUSE,  # what it comes with is told, and it is a pause all the same
        PAUSE,
        {"choices": [3], "_tongue": [{"n": 3}]},
        {"choices": [3, "more"]},
        {"_tongue": [{"n": 4}]},
    ]


def test_who_stumbles_over_an_event_does_so_where_it_came_from():
    def listening():
        try:
            yield {"n": 1}
        except KeyError:
            raise UpstreamError(502, "of another shape") from None

    with pytest.raises(UpstreamError, match="shape"):
        list(bearing("tongue", listening(), handed_back))


def handed_back(events):
    with handing_back(events):
        for event in events:
            yield {"choices": event["m"]}


def test_trouble_passes_through():
    def broken():
        yield {"n": 1}
        raise UpstreamError(502, "cut")

    parts = bearing("tongue", broken(), lambda events: (dict(event) for event in events))
    assert next(parts) == {"n": 1, "_tongue": [{"n": 1}]}
    with pytest.raises(UpstreamError):
        next(parts)
