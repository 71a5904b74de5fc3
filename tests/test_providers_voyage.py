"""What is promised of `providers/voyage.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from providers import Call, Scope, UpstreamError, voyage
from providers.voyage import Voyage
from strict import voyage as strict
from upstream import json_reply

GOLDEN = Path(__file__).parent / "golden" / "voyage"
URL = "https://api.voyageai.com/v1/embeddings"
OPENED = []


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def no_connection_left_behind():
    yield
    while OPENED:
        OPENED.pop().close()


def provider(**options):
    defaults = {name: default[0] for name, default in Voyage.options.items()}
    OPENED.append(Voyage("voyage", {**defaults, "api_key": "pa-1", "retries": 0, **options}))
    return OPENED[-1]


def embedded(asked, **chat):
    return asked.embed(Call({"model": "voyage-4", "input": ["lantern", "rope"], **chat}))


def vectors(answer):
    return [item["embedding"] for item in answer["data"]]


def test_a_golden_conversation(wire):
    sent = {"model": "voyage-4", "input": ["lantern", "rope"], "input_type": "document", "output_dimension": 4}
    headers = {"Authorization": "Bearer pa-1"}
    wire.expect("POST", URL, sent=sent, headers=headers, json=golden("embeddings_float"))
    chat = {"model": "voyage-4", "input": ["lantern", "rope"], "input_type": "document", "dimensions": 4}
    more = {"encoding_format": "float", "provider": "voyage", "type": "embeddings", "provider_options": {}}
    asked = Call({**chat, **more})
    answer = provider().embed(asked)
    assert asked.scope.warnings == {}
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 0.125, 1.0]},
            {"object": "embedding", "index": 1, "embedding": [-0.5, 0.75, 0.0625, 0.0]},
        ],
        "model": "voyage/voyage-4",
        "usage": {"prompt_tokens": 10, "total_tokens": 10},
    }


def test_nothing_is_sent_that_was_not_asked(wire):
    wire.expect("POST", URL, sent={"model": "voyage-4", "input": ["rope"]}, json={"data": [{"embedding": [1.0]}]})
    answer = embedded(provider(), input="rope", encoding_format="base64")
    assert answer["usage"]["total_tokens"] == 0


@pytest.mark.parametrize("model", ["", None])
def test_without_a_model_the_default_one_is_asked(upstream, model):
    server = upstream(strict.answer)
    answer = embedded(provider(base_url=server.url, default_model="voyage-4-lite"), model=model)
    assert answer["model"] == "voyage/voyage-4-lite"
    assert server.asked[0].json["model"] == "voyage-4-lite"


def test_voyages_own_options_are_passed_but_for_the_form_of_the_numbers(wire):
    own = {"truncation": False, "encoding_format": "base64", "input": "x"}
    sent = {"model": "voyage-4", "input": ["rope"], "truncation": False}
    wire.expect("POST", URL, sent=sent, json={"data": [{"embedding": [1.0]}]})
    embedded(provider(), input=["rope"], provider_options={"voyage": own})


def test_what_is_dropped_is_told(upstream):
    server = upstream(strict.answer)
    scope = Scope()
    chat = {"model": "voyage-4", "input": "a", "user": "u", "input_type": "clustering", "_x": 1, "strange": None}
    provider(base_url=server.url).embed(Call(chat, scope=scope))
    assert scope.warnings == {"user": "not supported by voyage", "input_type": "not supported by voyage"}


def test_token_ids_mean_nothing_here():
    with pytest.raises(UpstreamError) as caught:
        embedded(provider(), input=[1, 2])
    assert (caught.value.status, caught.value.param) == (400, "input")


# batches


def test_a_long_list_is_split_by_number_and_keeps_its_order(upstream):
    server = upstream(strict.answer)
    texts = [f"text {n}" for n in range(2001)]
    answer = embedded(provider(base_url=server.url), input=texts, dimensions=256)
    assert [len(asked.json["input"]) for asked in server.asked] == [1000, 1000, 1]
    assert [item["index"] for item in answer["data"]] == list(range(2001))
    body = {"model": "voyage-4", "output_dimension": 256}
    assert vectors(answer) == [strict.vector(text, body) for text in texts]
    assert answer["usage"] == {"prompt_tokens": 4002, "total_tokens": 4002}


@pytest.mark.parametrize(
    ("model", "most"),
    [
        *((model, 120_000) for model in ("voyage-4-large", "voyage-code-3", "voyage-law-2", "voyage-finance-2")),
        *((model, 320_000) for model in ("voyage-4", "other")),
        ("voyage-4-lite", 1_000_000),
    ],
)
def test_a_long_list_is_split_by_its_tokens(model, most):
    texts = ["x" * 29_997] * 101
    assert voyage.estimated(texts[0]) == 10_000
    batches = list(voyage.batches(texts, model))
    assert len(batches[0]) == most // 10_000 or batches == [texts]
    assert [text for batch in batches for text in batch] == texts


def test_of_a_text_that_is_too_long_only_what_counts_is_counted():
    assert voyage.estimated("x" * 10_000_000) == 32_000
    assert list(voyage.batches(["x" * 10_000_000], "voyage-4-large")) == [["x" * 10_000_000]]


def test_letters_beyond_ascii_are_more_tokens():
    assert voyage.estimated("") == 1
    assert voyage.estimated("灯" * 300) == 301
    assert voyage.estimated("\ud800") == 1


def test_vectors_are_put_in_the_order_of_their_texts(wire):
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}]
    wire.post(URL, json={"data": data, "usage": {"total_tokens": 2}})
    assert vectors(embedded(provider())) == [[0.0], [1.0]]


def test_a_vector_too_few_is_trouble(wire):
    wire.post(URL, json={"data": [{"index": 0, "embedding": [0.0]}]})
    with pytest.raises(UpstreamError, match="voyage gave 1 vectors for 2 texts") as caught:
        embedded(provider())
    assert (caught.value.status, caught.value.code) == (502, "provider_error")
    assert caught.value.provider == "voyage"


# errors


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, golden("error_400"), (400, None, None, "Model voyage-nope is not supported.")),
        (403, {"detail": "address"}, (403, None, None, "address")),
        (429, {"detail": "slow down"}, (429, "rate_limit_exceeded", None, "slow down")),
        (500, {"detail": ""}, (502, "provider_error", None, "voyage answered 500")),
        (503, "<html>", (503, "provider_overloaded", None, "voyage answered 503")),
        (422, {"detail": [{"loc": ["body", "input", 0], "msg": "none"}]}, (400, None, "input[0]", "input[0]: none")),
        (
            422,
            {"detail": [{"loc": ["body", "a", "b"], "msg": "odd"}, {"loc": ["body"], "msg": "worse"}]},
            (400, None, "a.b", "a.b: odd; worse"),
        ),
        (422, {"detail": [{}, "x"]}, (400, None, None, "voyage answered 422")),
    ],
)
def test_a_refusal_keeps_its_status_and_its_words(wire, status, body, expected):
    wire.post(URL, body=json.dumps(body) if isinstance(body, dict) else body, status=status)
    with pytest.raises(UpstreamError) as caught:
        embedded(provider())
    error = caught.value
    assert (error.status, error.code, error.param, error.message) == expected
    assert (error.provider, error.provider_status) == ("voyage", status)


def test_a_key_that_is_refused_is_the_proxys(wire):
    wire.post(URL, json=golden("error_401"), status=401)
    with pytest.raises(UpstreamError, match="own key for it: Provided API key is invalid") as caught:
        embedded(provider())
    assert caught.value.code == "provider_auth"
    assert "pa-1" not in caught.value.message


def test_how_long_to_wait_is_passed_on(wire):
    wire.post(URL, json={"detail": "slow"}, status=429, headers={"Retry-After": "7"})
    with pytest.raises(UpstreamError) as caught:
        embedded(provider())
    assert (caught.value.retry_after, caught.value.headers) == (7.0, {"Retry-After": "7"})


def test_without_a_key_nothing_is_sent():
    asked = provider(api_key="")
    assert not asked.configured
    with pytest.raises(UpstreamError) as caught:
        embedded(asked)
    assert caught.value.message == "no API key for voyage: set VOYAGE_API_KEY or [providers.voyage] api_key"
    assert (caught.value.status, caught.value.code, caught.value.provider) == (401, "provider_auth", "voyage")


# options


def test_a_key_of_atlas_is_known_elsewhere(wire):
    wire.post("https://ai.mongodb.com/v1/embeddings", json={"data": [{"embedding": [1.0]}]})
    embedded(provider(api_key="al-1"), input="a")
    assert wire.calls[0].request.headers["Authorization"] == "Bearer al-1"


def test_an_address_that_was_given_stays(upstream):
    server = upstream(strict.answer)
    assert len(vectors(embedded(provider(api_key="al-1", base_url=server.url)))) == 2
    assert len(vectors(embedded(provider(api_key="al-1", base_url=server.url + "/v1/")))) == 2


def test_at_another_address_no_key_is_needed(upstream):
    server = upstream(lambda _: json_reply({"data": [{"embedding": [1.0]}]}))
    asked = provider(api_key="", base_url=server.url)
    assert asked.configured
    embedded(asked, input="a")
    assert "authorization" not in server.asked[0].headers


def test_the_models_are_those_of_the_config():
    assert [model["id"] for model in provider(models=" a, b,").models()] == ["a", "b"]
    assert {"id": "voyage-4", "object": "model", "created": 0, "owned_by": "voyage", "capabilities": ["embedding"]} in (
        provider().models()
    )


def test_it_has_no_chat():
    with pytest.raises(UpstreamError, match="voyage has no chat"):
        next(provider().chat(Call({"model": "voyage-4", "messages": []})))


# the whole road, to a severe Voyage


def test_queries_and_documents_are_told_apart(upstream):
    server = upstream(strict.answer)
    asked = provider(base_url=server.url)
    query, document, neither = (
        vectors(embedded(asked, **more)) for more in ({"input_type": "query"}, {"input_type": "document"}, {})
    )
    assert query != document != neither
    assert query == [strict.vector(text, {"model": "voyage-4", "input_type": "query"}) for text in ("lantern", "rope")]


def test_what_it_refuses_is_told_in_its_words(upstream):
    server = upstream(strict.answer)
    with pytest.raises(UpstreamError, match="output_dimension 3 is not supported"):
        embedded(provider(base_url=server.url), dimensions=3)
    with pytest.raises(UpstreamError, match="told to fail") as caught:
        embedded(provider(base_url=server.url), input="error 500")
    assert caught.value.code == "provider_error"


def test_a_relay_passes_what_was_sent_with_our_key(upstream):
    server = upstream(strict.answer)
    fields = [("Content-Type", "application/json"), ("Authorization", "Bearer theirs")]
    relayed = provider(base_url=server.url).relay(
        "POST", "/v1/embeddings", fields, b'{"model":"voyage-4","input":"a","encoding_format":"base64"}', Scope()
    )
    with relayed as exchange:
        body = b"".join(exchange.blocks())
    assert exchange.status == 200
    assert isinstance(json.loads(body)["data"][0]["embedding"], str)
    assert server.asked[0].headers["authorization"] == "Bearer pa-1"
