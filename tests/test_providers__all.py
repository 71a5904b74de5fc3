"""What is promised of `providers/_all.py`: where a model leads, and who answers when the first cannot."""

from __future__ import annotations

import threading
import time

import pytest

from providers import PAUSE, Allowed, Aside, Call, Pocket, Provider, Scope, Trouble, UpstreamError
from providers._all import Everything

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


class Stand(Provider):
    """A provider by hand: what it says is given, an exception is raised; it remembers what it was asked."""

    blocks = False

    def __init__(self, name, *said, lists=(), deputy="", configured=True, warns=None):
        super().__init__(name, {})
        self.said = said
        self.lists = lists
        self.deputy = deputy
        self.configured = configured
        self.warns = warns or {}
        self.asked = []
        self.open = 0
        self.closed = False

    def told(self, call):
        self.asked.append(call.chat)
        for field, why in self.warns.items():
            call.warn(field, why)

    def chat(self, call):
        self.told(call)
        self.open += 1
        try:
            for item in self.said:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.open -= 1

    def embed(self, call):
        self.told(call)
        for item in self.said:
            if isinstance(item, BaseException):
                raise item
        return {"model": f"{self.name}/{call.model}", "data": []}

    def count_tokens(self, call):
        self.told(call)
        for item in self.said:
            if isinstance(item, BaseException):
                raise item
        return 7

    def embeds_at(self, model):
        return self.deputy.replace("MODEL", model)

    def models(self):
        for item in self.lists:
            if isinstance(item, BaseException):
                raise item
        return list(self.lists)

    def relay(self, method, path, fields, body, scope):
        return (self.name, method, path, list(fields), body, scope)

    def close(self):
        self.closed = True


def part(text):
    return {"choices": [{"delta": {"content": text}}]}


def failing(status, code=None):
    return UpstreamError(status, f"trouble {status}", code=code)


def call(model, scope=None, strict=False, **more):
    return Call({"model": model, **CHAT, **more}, scope=scope, strict=strict)


# where a model leads


def test_a_model_leads_to_its_provider_under_its_own_name():
    a, b = Stand("a", part("from a")), Stand("b", part("from b"))
    every = Everything([a, b], {})
    assert list(every.chat(call("b/some/model:tag"))) == [part("from b")]
    assert b.asked == [{"model": "some/model:tag", **CHAT}]
    assert a.asked == []


def test_the_provider_of_a_model_is_found_in_any_spelling():
    every = Everything([Stand("a", part("x"))], {})
    assert every.knows("A/m")
    assert every.targets("A/m")[0].model == "m"


@pytest.mark.parametrize("model", ["", "m", "nobody/m", "a", "a/", "a/ ", "/m", " a/m", "\u0130/m"])
def test_a_model_that_leads_nowhere_is_not_found_and_told_how_to_name_one(model):
    every = Everything([Stand("a")], {})
    with pytest.raises(Trouble, match="provider/model, with one of a") as caught:
        list(every.chat(call(model)))
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_what_is_known_are_aliases_and_models_of_providers():
    every = Everything([Stand("a"), Stand("b")], {"fast": ["a/m"]})
    assert every.names == ("a", "b")
    assert [every.knows(name) for name in ("fast", "a/m", "c/m", "m", "Fast")] == [True, True, False, False, False]


def test_an_alias_is_another_name_for_a_model():
    a = Stand("a", part("x"))
    assert list(Everything([a], {"fast": ["a/m"]}).chat(call("fast"))) == [part("x")]
    assert a.asked[0]["model"] == "m"


def test_an_alias_comes_before_a_model_of_that_name():
    a, b = Stand("a", part("a")), Stand("b", part("b"))
    assert list(Everything([a, b], {"a/m": ["b/n"], "a": ["b/n"]}).chat(call("a/m"))) == [part("b")]
    assert list(Everything([a, b], {"a": ["b/n"]}).chat(call("a"))) == [part("b")]


def test_an_alias_with_a_star_stands_for_all_names_that_begin_so():
    a, b = Stand("a"), Stand("b")
    stars = {"claude-*": ["a/claude-*", "b/m"], "claude-haiku-*": ["b/small"], "claude-x": ["b/x"], "*": ["a/rest:*"]}
    every = Everything([a, b], stars)
    meant = {
        "claude-opus-4": ["a/claude-opus-4", "b/m"],
        "claude-haiku-4": ["b/small"],
        "claude-x": ["b/x"],
        "gpt": ["a/rest:gpt"],
        "b/claude-opus-4": ["b/claude-opus-4"],
    }
    for name, targets in meant.items():
        assert [f"{target.provider.name}/{target.model}" for target in every.targets(name)] == targets
        assert every.knows(name)
    assert not Everything([a], {"claude-*": ["a/*"]}).knows("gpt")


def test_aliases_are_in_the_list_of_all_models_but_not_those_with_a_star():
    models, _ = Everything([Stand("a", lists=[model("x")])], {"fast": ["a/x"], "c-*": ["a/*"]}).survey(Scope())
    assert [(one["id"], one["provider"]) for one in models] == [("a/x", "a"), ("fast", "a")]


def test_nothing_is_asked_before_the_first_part_is():
    a = Stand("a", part("x"))
    parts = Everything([a], {"fast": ["a/m", "a/n"]}).chat(call("fast"))
    assert a.asked == []
    next(parts)
    assert len(a.asked) == 1
    parts.close()
    assert a.open == 0


def test_what_stands_around_every_chat_is_put_around_it():
    every = Everything([Stand("a", part("x"))], {})
    inner, seen = every.ask, []

    def around(asked):
        seen.append(asked.model)
        return inner(asked.asking(model="a/other"))

    every.ask = around
    list(every.chat(call("a/m")))
    assert seen == ["a/m"]
    assert every.providers["a"].asked[0]["model"] == "other"


# who answers when the first cannot


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 409, 429, 500, 501, 502, 503, 504])
def test_the_next_answers_when_the_first_fails(status):
    a, b = Stand("a", PAUSE, failing(status)), Stand("b", PAUSE, part("b"))
    scope = Scope()
    parts = list(Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast", scope)))
    assert parts == [PAUSE, PAUSE, part("b")]
    assert scope.warnings == {"model": "a/m failed: b/n was asked"}
    assert (a.open, b.open) == (0, 0)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_nobody_else_is_asked_when_the_question_is_wrong(status):
    a, b = Stand("a", failing(status)), Stand("b", part("b"))
    with pytest.raises(UpstreamError, match=f"trouble {status}"):
        list(Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast")))
    assert b.asked == []


def test_nobody_else_is_asked_once_the_answer_has_begun():
    a, b = Stand("a", part("a"), failing(503)), Stand("b", part("b"))
    parts = Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast"))
    assert next(parts) == part("a")
    with pytest.raises(UpstreamError, match="trouble 503"):
        next(parts)
    assert b.asked == []
    assert a.open == 0


def test_our_own_refusals_and_bugs_are_nobody_elses_business():
    for error in (Trouble(503, "ours"), ValueError("a bug")):
        a, b = Stand("a", error), Stand("b", part("b"))
        with pytest.raises(type(error)):
            list(Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast")))
        assert b.asked == []


def test_the_last_ones_trouble_is_told_when_all_fail():
    stands = [Stand("a", failing(500)), Stand("b", failing(429)), Stand("c", failing(401))]
    scope = Scope()
    with pytest.raises(UpstreamError, match="trouble 401"):
        list(Everything(stands, {"fast": ["a/1", "b/2", "c/3"]}).chat(call("fast", scope)))
    assert [len(stand.asked) for stand in stands] == [1, 1, 1]
    assert scope.warnings["model"] == "b/2 failed: c/3 was asked"


def test_a_failed_ones_warnings_are_forgotten_and_earlier_ones_kept():
    a = Stand("a", failing(503), warns={"seed": "not supported by a"})
    b = Stand("b", part("b"), warns={"top_k": "not supported by b"})
    scope = Scope()
    scope.warnings["store"] = "ignored"
    list(Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast", scope)))
    assert scope.warnings == {
        "store": "ignored",
        "model": "a/m failed: b/n was asked",
        "top_k": "not supported by b",
    }


def test_who_is_strict_is_refused_by_the_first_and_never_falls_back():
    a, b = Stand("a", part("a"), warns={"seed": "not supported by a"}), Stand("b", part("b"))
    with pytest.raises(UpstreamError) as caught:
        list(Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast", strict=True)))
    assert (caught.value.status, caught.value.param) == (400, "seed")
    assert b.asked == []


def test_a_client_that_leaves_closes_whoever_answers():
    a, b = Stand("a", failing(503)), Stand("b", part("1"), part("2"))
    parts = Everything([a, b], {"fast": ["a/m", "b/n"]}).chat(call("fast"))
    next(parts)
    assert b.open == 1
    parts.close()
    assert b.open == 0


# embeddings and counts


def test_embeddings_and_counts_go_the_same_way():
    a, b = Stand("a", failing(503)), Stand("b")
    every, scope = Everything([a, b], {"fast": ["a/m", "b/n"]}), Scope()
    assert every.embed(call("fast", scope))["model"] == "b/n"
    assert scope.warnings == {"model": "a/m failed: b/n was asked"}
    assert every.count_tokens(call("fast")) == 7
    assert every.embed(call("B/x"))["model"] == "b/x"
    with pytest.raises(UpstreamError, match="trouble 400"):
        Everything([Stand("a", failing(400)), b], {"fast": ["a/m", "b/n"]}).count_tokens(call("fast"))


def test_a_count_that_one_cannot_make_the_next_makes():
    class Mute(Provider):
        pass

    every = Everything([Mute("a", {}), Stand("b")], {"fast": ["a/m", "b/n"]})
    assert every.count_tokens(call("fast")) == 7


def test_embeddings_that_another_makes_are_told():
    a, v, scope = Stand("a", deputy="v/voyage-x"), Stand("v"), Scope()
    assert Everything([a, v], {}).embed(call("a/claude", scope))["model"] == "v/voyage-x"
    assert a.asked == []
    assert scope.warnings == {"model": "a has no embeddings: v/voyage-x answered"}


def test_a_deputy_may_be_asked_for_its_own_default():
    v = Stand("v")
    Everything([Stand("a", deputy="v/"), v], {}).embed(call("a/claude"))
    assert v.asked[0]["model"] == ""


@pytest.mark.parametrize("deputy", ["v/x", "nobody/x", "nobody"])
def test_embeddings_that_nobody_can_make_are_refused_with_the_remedy(deputy):
    every = Everything([Stand("a", deputy=deputy), Stand("v", configured=False)], {})
    with pytest.raises(UpstreamError) as caught:
        every.embed(call("a/claude"))
    assert (caught.value.status, caught.value.code) == (400, "unsupported_operation")
    for word in ("a has no embeddings endpoint", "VOYAGE_API_KEY", "[providers.a] embeddings"):
        assert word in caught.value.message


# what a client may ask for


def limited(*names):
    """Give the scope of a client that may ask for these."""
    scope = Scope()
    scope.allowed = Allowed(names)
    return scope


ASKING = [lambda every, asked: list(every.chat(asked)), Everything.embed, Everything.count_tokens, Everything.describe]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("name", ["b/m", "B/m", "a/n", "b-first", "b-any"])
def test_what_is_not_allowed_is_forbidden_before_anybody_is_asked(ask, name):
    a, b = Stand("a", part("a")), Stand("b", part("b"))
    every = Everything([a, b], {"b-first": ["b/m", "b/n", "a/n"], "b-a*": ["b/*"]})
    with pytest.raises(Trouble) as caught:
        ask(every, call(name, limited("a/m")))
    assert (caught.value.status, caught.value.kind) == (403, "permission_error")
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")
    assert a.asked == b.asked == []


@pytest.mark.parametrize("ask", ASKING[:3])
def test_of_an_alias_only_those_are_asked_that_are_allowed(ask):
    a, b, c = Stand("a", part("a")), Stand("b", failing(503)), Stand("c", failing(503))
    every, scope = Everything([a, b, c], {"fast": ["b/m", "c/m", "a/m"]}), limited("c/m", "a/*")
    ask(every, call("fast", scope))
    assert (len(b.asked), len(c.asked), len(a.asked)) == (0, 1, 1)
    assert scope.warnings == {"model": "c/m failed: a/m was asked"}


def test_what_stands_around_every_chat_does_not_answer_what_is_not_allowed():
    every = Everything([Stand("a", part("a"))], {})
    every.ask = lambda _: iter([part("remembered")])
    with pytest.raises(Trouble, match="does not allow the model 'a/m'"):
        every.chat(call("a/m", limited("a/n")))


def test_what_stands_around_every_chat_cannot_lead_past_what_is_allowed():
    a, b = Stand("a", part("a")), Stand("b", part("b"))
    every = Everything([a, b], {})
    inner = every.ask
    every.ask = lambda asked: inner(asked.asking(model="b/m"))
    with pytest.raises(Trouble, match="does not allow the model 'b/m'"):
        list(every.chat(call("a/m", limited("a/*"))))
    assert b.asked == []


def test_a_deputy_has_to_be_allowed_too():
    a, v = Stand("a", deputy="v/voyage-x"), Stand("v")
    with pytest.raises(Trouble, match="does not allow v/voyage-x, which makes embeddings for a") as caught:
        Everything([a, v], {}).embed(call("a/claude", limited("a/*")))
    assert (caught.value.status, v.asked) == (403, [])
    assert Everything([a, v], {}).embed(call("a/claude", limited("a/*", "v/voyage-x")))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"models": ["a/x"]}, "models"),
        ({"provider_options": {"openai": {"model": "x"}}}, "provider_options.openai.model"),
        ({"provider_options": {"a": {"fallbacks": []}}}, "provider_options.a.fallbacks"),
        ({"_own": Pocket({"model": "m", "fallback_models": []})}, "fallback_models"),
    ],
)
def test_who_may_ask_some_models_only_cannot_name_others_in_another_place(more, param):
    a = Stand("a", part("a"))
    every = Everything([a], {})
    with pytest.raises(Trouble, match="may name other models") as caught:
        list(every.chat(call("a/m", limited("a/m"), **more)))
    assert (caught.value.status, caught.value.param, a.asked) == (403, param, [])
    assert list(every.chat(call("a/m", limited("a/*"), **more)))  # where all are allowed, all may be named


def test_other_options_of_a_provider_are_for_everybody():
    a = Stand("a", part("a"))
    options = {"a": {"top_k": 1}, "b": None}
    assert list(Everything([a], {}).chat(call("a/m", limited("a/m"), provider_options=options)))


def test_lists_show_what_is_allowed():
    a, b, c = Stand("a", lists=[model("x"), model("y/z")]), Stand("b", lists=[model("x")]), Stand("c", failing(500))
    c.lists = [failing(500)]
    aliases = {"both": ["b/x", "a/y/z"], "other": ["b/x"], "A": ["a/x"]}
    every = Everything([a, b, c], aliases)
    models, errors = every.survey(limited("a/y*"))
    assert [(one["id"], one["provider"]) for one in models] == [("a/y/z", "a"), ("both", "a")]
    assert errors == {}
    assert [one["id"] for one in every.survey(limited("a/y*"), "a")[0]] == ["y/z"]
    assert every.survey(limited()) == ([], {})
    with pytest.raises(Trouble, match="does not allow b") as caught:
        every.survey(limited("a/y*"), "b")
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "provider_not_allowed", "provider")


@pytest.mark.parametrize("names", [(), ("b/*",), ("a/m",), ("a/m*",), ("a/",)])
def test_passing_on_needs_leave_for_the_whole_provider(names):
    every = Everything([Stand("a"), Stand("b")], {})
    with pytest.raises(Trouble, match="does not allow all of a") as caught:
        every.relay("GET", "/a/v1/models", [], b"", limited(*names))
    assert (caught.value.status, caught.value.code) == (403, "provider_not_allowed")
    assert every.relay("GET", "/a/v1/models", [], b"", limited("a/*"))


# lists of models


def model(name):
    return {"id": name, "object": "model"}


def test_one_providers_models_have_their_own_names():
    every = Everything([Stand("a", lists=[model("x")]), Stand("b", lists=[model("y")])], {})
    assert every.survey(Scope(), "a") == ([{**model("x"), "provider": "a"}], {})


def test_one_providers_trouble_is_raised():
    every = Everything([Stand("a", lists=[failing(503)])], {})
    with pytest.raises(UpstreamError, match="trouble 503"):
        every.survey(Scope(), "a")


def test_all_models_bear_their_providers_names_in_order():
    every = Everything([Stand("b", lists=[model("y"), model("z/z")]), Stand("a", lists=[model("x")])], {})
    found = [
        {**model("b/y"), "provider": "b"},
        {**model("b/z/z"), "provider": "b"},
        {**model("a/x"), "provider": "a"},
    ]
    assert every.survey(Scope()) == (found, {})
    assert every.survey(Scope())[0] == found


def test_who_is_not_configured_is_left_out_of_all_but_may_be_asked():
    every = Everything([Stand("a", lists=[model("x")], configured=False), Stand("b", lists=[failing(500)])], {})
    assert every.survey(Scope()) == ([], {"b": "trouble 500"})
    assert every.survey(Scope(), "a")[0]


def test_a_provider_that_may_block_is_asked_in_a_thread():
    stand = Stand("p", {"a": 1})
    stand.blocks = True
    call = Call({"model": "p/m"})
    parts = Everything([stand], {}).chat(call)
    assert next(parts) == {}
    assert call.scope.pending == Aside(stays=True)
    assert not stand.asked
    assert list(parts) == [{"a": 1}]


class Slow(Stand):
    """Lists its models when it is let."""

    def __init__(self, name, lists):
        super().__init__(name, lists=lists)
        self.let = threading.Event()
        self.times = 0

    def models(self):
        self.times += 1
        self.let.wait(10)
        return super().models()


@pytest.fixture
def slow():
    made = []

    def make(name, *lists):
        made.append(Slow(name, list(lists)))
        return made[-1]

    yield make
    for one in made:
        one.let.set()


def test_all_are_asked_at_the_same_time_and_the_silent_ones_waited_for_no_longer_than_patience(slow):
    silent = [slow(f"s{number}", model("m")) for number in range(5)]
    every = Everything([*silent, Stand("a", lists=[model("x")])], {}, patience=0.1)
    begun = time.monotonic()
    models, errors = every.survey(Scope())
    assert time.monotonic() - begun < 1.0
    assert [one["id"] for one in models] == ["a/x"]
    assert errors == {one.name: "no answer within 0.1 s" for one in silent}


def test_a_silent_one_is_not_asked_again_before_it_answered_and_then_its_list_is_there(slow):
    late = slow("s", model("m"))
    every = Everything([late], {}, patience=0.02)
    for _ in range(3):
        assert every.survey(Scope()) == ([], {"s": "no answer within 0.02 s"})
    assert late.times == 1
    late.let.set()
    patient(lambda: every.survey(Scope()) == ([{**model("s/m"), "provider": "s"}], {}))


def patient(promised):
    """Wait until it is so."""
    deadline = time.monotonic() + 5
    while not promised():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_last_good_list_stands_in_for_one_that_fell_silent(slow):
    once = slow("s", model("m"))
    once.let.set()
    every = Everything([once], {}, patience=2.0)
    assert every.survey(Scope())[1] == {}
    every._surveyor.patience = 0.02
    once.let.clear()
    models, errors = every.survey(Scope())
    assert [one["id"] for one in models] == ["s/m"]
    assert errors == {"s": "no answer within 0.02 s"}


def test_an_error_is_told_until_a_list_comes_again():
    a = Stand("a", lists=[failing(503)])
    every = Everything([a], {})
    assert every.survey(Scope()) == ([], {"a": "trouble 503"})
    a.lists = [model("x")]
    assert every.survey(Scope()) == ([{**model("a/x"), "provider": "a"}], {})
    a.lists = [failing(429)]
    models, errors = every.survey(Scope())
    assert [one["id"] for one in models] == ["a/x"]
    assert errors == {"a": "trouble 429"}


def test_a_broken_provider_is_told_and_disturbs_no_other():
    every = Everything([Stand("a", lists=[{"no": "id"}]), Stand("b", lists=[model("y")])], {})
    models, errors = every.survey(Scope())
    assert [one["id"] for one in models] == ["b/y"]
    assert errors == {"a": "its list of models is not of the shape it should have"}


def test_many_may_ask_at_the_same_time():
    every = Everything([Stand(name, lists=[model("m")]) for name in "abc"], {})
    told = []
    threads = [threading.Thread(target=lambda: told.append(every.survey(Scope()))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [([one["id"] for one in models], errors) for models, errors in told] == [(["a/m", "b/m", "c/m"], {})] * 16


# what passes through


@pytest.mark.parametrize(
    ("path", "passed"),
    [("/a/v1/x?y=%2F", "/v1/x?y=%2F"), ("/a/", "/"), ("/a/?q", "/?q"), ("/a//b", "//b"), ("/a/b/", "/b/")],
)
def test_a_request_is_passed_on_to_the_provider_its_path_names(path, passed):
    every, scope = Everything([Stand("a"), Stand("b")], {}), Scope()
    assert every.relay("PUT", path, [("X", "y")], b"body", scope) == ("a", "PUT", passed, [("X", "y")], b"body", scope)


class Open:
    """An exchange as a provider opens it."""

    status = 200

    def __init__(self, *told):
        self.told = told
        self.closed = False

    def head(self):
        yield PAUSE

    def close(self):
        self.closed = True


def test_a_provider_that_may_block_passes_on_in_a_thread():
    stand, opened, scope = Stand("a"), [], Scope()
    stand.blocks = True
    stand.relay = lambda *told: opened.append(Open(*told)) or opened[0]
    exchange = Everything([stand], {}).relay("PUT", "/a/x", [], b"body", scope)
    waiting = exchange.head()
    next(waiting)
    assert scope.pending == Aside(stays=True)
    assert not opened
    assert list(waiting) == [PAUSE]
    assert exchange.status == 200
    assert opened[0].told == ("PUT", "/x", [], b"body", scope)
    exchange.close()
    assert opened[0].closed


def test_one_that_was_not_begun_can_be_closed():
    stand = Stand("a")
    stand.blocks = True
    Everything([stand], {}).relay("GET", "/a/x", [], b"", Scope()).close()


def test_what_a_class_says_of_its_own_is_not_said_of_another():
    class Honest(Provider):
        blocks = False

    class Chats(Honest):
        def chat(self, call):
            yield {}

    class Relays(Honest):
        def relay(self, method, path, fields, body, scope):
            return None

    class Named(Honest):
        pass

    assert (Honest.blocks, Chats.blocks, Relays.blocks, Named.blocks) == (False, True, True, False)


def test_closing_closes_every_provider():
    stands = [Stand("a"), Stand("b")]
    Everything(stands, {}).close()
    assert all(stand.closed for stand in stands)
