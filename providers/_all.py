"""All providers behind one face: which of them has a model, and who answers when the first cannot."""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from functools import partial
from typing import Any, Callable, Dict, Generator, Iterable, List, Mapping, NamedTuple, Sequence, Tuple, TypeVar

from . import JSON, Allowed, Aside, Call, Parts, Pocket, Provider, Scope, Trouble, UpstreamError, chat_aside
from ._pockets import for_provider
from ._transport import STUMBLES

T = TypeVar("T")

#: our own client's mistakes: no other upstream would take them either
HOPELESS = frozenset({400, 413, 415, 422})
_MODELS = re.compile("model|fallback", re.IGNORECASE)


class Target(NamedTuple):
    """Where a question goes: a provider, and its own name for the model."""

    provider: Provider
    model: str


class Everything(Provider):
    """Every configured provider. Models are named `provider/model`, or by an alias.

    `aliases` maps a name to one or more `provider/model`; the later ones answer when the earlier
    cannot. A name that ends in `*` stands for all that begin so, and a `*` in what it leads to for the rest; such
    names come last, the longest of them first. `patience` is how many seconds a list of all models may take.
    """

    def __init__(
        self, providers: Iterable[Provider], aliases: Mapping[str, Sequence[str]], patience: float = 2.0
    ) -> None:
        super().__init__("llmproxy", {})
        self.providers = {provider.name: provider for provider in providers}
        self.aliases = aliases
        self._patterns = sorted((alias[:-1] for alias in aliases if alias.endswith("*")), key=len, reverse=True)
        self.blocks = False  # each of them is taken aside that does
        self.ask: Callable[[Call], Parts] = self._ask  # what stands around every chat is put around this
        self._surveyor = _Surveyor(patience)

    @property
    def names(self) -> Tuple[str, ...]:
        return tuple(self.providers)

    def knows(self, model: str) -> bool:
        return model.partition("/")[0].lower() in self.providers or self._meant(model) != (model,)

    def targets(self, model: str) -> List[Target]:
        """Give where `model` leads, the first choice first; raises a 404 when it leads nowhere."""
        targets = [self._target(name) for name in self._meant(model)]
        for _, own in targets:
            if not own.strip():
                raise self._nowhere(model)
        return targets

    def _meant(self, model: str) -> Sequence[str]:
        """Give what an alias stands for; any other name stands for itself."""
        if model in self.aliases or model.partition("/")[0].lower() in self.providers:
            return self.aliases.get(model, (model,))
        for beginning in self._patterns:
            if model.startswith(beginning):
                rest = model[len(beginning) :]
                return [name.replace("*", rest) for name in self.aliases[f"{beginning}*"]]
        return (model,)

    def _target(self, model: str) -> Target:
        """Give where `provider/model` leads; it may end with the slash, to mean the provider's own default."""
        name, _, own = model.partition("/")
        provider = self.providers.get(name.lower())
        if provider is None:
            raise self._nowhere(model)
        return Target(provider, own)

    def _nowhere(self, model: str) -> Trouble:
        names = ", ".join(self.names)
        told = f"no provider for the model {model[:80]!r}: name it provider/model, with one of {names}"
        return Trouble(404, told, code="model_not_found", param="model")

    def _allowed(self, call: Call) -> List[Target]:
        """Give where a call may go of where its model leads; raises a 403 where there is nothing left."""
        targets, allowed = self.targets(call.model), call.scope.allowed
        if allowed.all:
            return targets
        targets = [target for target in targets if allowed.one(target.provider.name, target.model)]
        if not targets:
            raise _forbidden(f"your token does not allow the model {call.model[:80]!r}")
        if not all(allowed.whole(target.provider.name) for target in targets):
            for field in other_models(call.chat):
                told = f"your token does not allow {field}: it may name other models"
                raise Trouble(403, told, code="model_not_allowed", param=field)
        return targets

    def chat(self, call: Call) -> Parts:
        if self.ask != self._ask:  # what stands around may answer by itself
            self._allowed(call)
        return self.ask(call)

    def _ask(self, call: Call) -> Parts:
        targets = self._allowed(call)
        if len(targets) == 1:
            return _chat(targets[0].provider, for_provider(call, *targets[0]))
        return self._chat_with_one_of(targets, call)

    def _chat_with_one_of(self, targets: List[Target], call: Call) -> Parts:
        warned = dict(call.scope.warnings)
        for at, (provider, model) in enumerate(targets):
            begun = False
            try:
                with closing(_chat(provider, for_provider(call, provider, model))) as parts:
                    for part in parts:
                        begun = begun or bool(part)
                        yield part
            except UpstreamError as error:
                if begun or not _another_may(error, at, targets):
                    raise
                _tell(call.scope, warned, targets, at)
            else:
                return

    def embed(self, call: Call) -> JSON:
        return self._first(call, lambda target, asked: self._embedder(target, call.scope).embed(asked))

    def describe(self, call: Call) -> JSON:
        """Tell of one model, under the name it was asked by."""

        def told(target: Target, asked: Call) -> JSON:
            return {**target.provider.describe(asked), "id": call.model, "provider": target.provider.name}

        return self._first(call, told)

    def count_tokens(self, call: Call) -> int:
        return self._first(call, lambda target, asked: target.provider.count_tokens(asked))

    def _first(self, call: Call, ask: Callable[[Target, Call], T]) -> T:
        """Ask the targets in turn until one answers."""
        targets, warned = self._allowed(call), dict(call.scope.warnings)
        for at, target in enumerate(targets):
            try:
                return ask(target, for_provider(call, target.provider, target.model))
            except UpstreamError as error:
                if not _another_may(error, at, targets):
                    raise
                _tell(call.scope, warned, targets, at)
        raise AssertionError("an alias leads somewhere")

    def _embedder(self, target: Target, scope: Scope) -> Provider:
        """Give who makes the embeddings: the provider itself, or the one it names in its place."""
        elsewhere = target.provider.embeds_at(target.model)
        if not elsewhere:
            return target.provider
        deputy = self._deputy(target, elsewhere)
        if not scope.allowed.one(deputy.provider.name, deputy.model):
            raise _forbidden(
                f"your token does not allow {elsewhere}, which makes embeddings for {target.provider.name}"
            )
        return _Delegate(target.provider, deputy)

    def _deputy(self, target: Target, elsewhere: str) -> Target:
        name = target.provider.name
        remedy = (
            f"{name} has no embeddings endpoint; set VOYAGE_API_KEY, or [providers.{name}] embeddings = provider/model"
        )
        if not self.knows(elsewhere):
            raise UpstreamError(400, remedy, code="unsupported_operation", param="provider", provider=name)
        deputy = self._target(elsewhere)
        if not deputy.provider.configured:
            raise UpstreamError(400, remedy, code="unsupported_operation", param="provider", provider=name)
        return deputy

    def survey(self, scope: Scope, provider: str = "") -> Tuple[List[JSON], Dict[str, str]]:
        allowed = scope.allowed
        if provider:
            if not allowed.part(provider):
                raise _forbidden(f"your token does not allow {provider}", "provider")
            models, errors = self.providers[provider].survey(scope)
            return [model for model in models if allowed.one(provider, str(model.get("id")))], errors
        asked = [p for p in self.providers.values() if p.configured and allowed.part(p.name)]
        models, errors = self._surveyor.survey(asked)
        models = [model for model in models if allowed.one(*model["id"].split("/", 1))]
        return models + self._named(allowed), errors

    def _named(self, allowed: Allowed) -> List[JSON]:
        """List the aliases as models; each as one of the provider that answers first."""
        names = {
            alias: [t.provider.name for t in self.targets(alias) if allowed.one(t.provider.name, t.model)]
            for alias in self.aliases
            if alias[-1:] != "*"
        }
        return [
            {"id": alias, "object": "model", "created": 0, "owned_by": "llmproxy", "provider": providers[0]}
            for alias, providers in names.items()
            if providers
        ]

    def relay(self, method: str, path: str, fields: Iterable[Tuple[str, str]], body: bytes, scope: Scope) -> Any:
        """Pass a request on; the path's first segment names the provider."""
        name, slash, rest = path[1:].partition("/")
        if not scope.allowed.whole(name):
            raise _forbidden(f"your token does not allow all of {name}: what is passed on is not read here", "provider")
        provider = self.providers[name]
        ask = partial(provider.relay, method, slash + rest, fields, body, scope)
        return _RelayedAside(ask, scope) if provider.blocks else ask()

    def close(self) -> None:
        for provider in self.providers.values():
            provider.close()


class _Delegate(Provider):
    """A provider whose embeddings another one makes, and who says so."""

    def __init__(self, provider: Provider, deputy: Target) -> None:
        super().__init__(provider.name, {})
        self.deputy = deputy

    def embed(self, call: Call) -> JSON:
        answer = self.deputy.provider.embed(call.asking(model=self.deputy.model))
        call.scope.warnings["model"] = f"{self.name} has no embeddings: {answer.get('model')} answered"
        return answer


class _RelayedAside:
    """An open exchange with a provider that may block: a thread has it from its first step to its last."""

    def __init__(self, ask: Callable[[], Any], scope: Scope) -> None:
        self._ask = ask
        self._scope = scope
        self._exchange: Any = None

    def head(self) -> Generator[JSON, None, None]:
        yield from self._scope.aside(Aside(stays=True))
        self._exchange = self._ask()
        yield from self._exchange.head()

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)


def _chat(provider: Provider, call: Call) -> Parts:
    """Have a provider answer, in a thread if it may block."""
    return chat_aside(provider.chat, call) if provider.blocks else provider.chat(call)


def _forbidden(message: str, param: str = "model") -> Trouble:
    return Trouble(403, message, code=f"{param}_not_allowed", param=param)


def other_models(chat: JSON) -> List[str]:
    """Name the fields by which a question could have an upstream ask other models than the one it is about.

    Gateways have lists of models to fall back on, and the options of a provider are sent as they stand.
    """
    bodies = [chat, *(pocket.body for pocket in chat.values() if isinstance(pocket, Pocket))]
    found = [name for body in bodies for name in body if name != "model" and _MODELS.search(name)]
    options = chat.get("provider_options")
    for dialect, own in options.items() if isinstance(options, dict) else ():
        found += [f"provider_options.{dialect}.{name}" for name in own or () if _MODELS.search(name)]
    return found


def _another_may(error: UpstreamError, at: int, targets: List[Target]) -> bool:
    return error.status not in HOPELESS and at + 1 < len(targets)


def _tell(scope: Scope, warned: Mapping[str, str], targets: List[Target], failed: int) -> None:
    """Tell that a fall-back answers; what the failed one would have changed is of no interest any more."""
    gone, now = targets[failed], targets[failed + 1]
    scope.warnings.clear()
    scope.warnings.update(warned)
    scope.warnings["model"] = f"{gone.provider.name}/{gone.model} failed: {now.provider.name}/{now.model} was asked"


class _Surveyor:
    """Asks all providers for their models at the same time, and remembers what the silent ones said last."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._lists: Dict[str, List[JSON]] = {}
        self._errors: Dict[str, str] = {}
        self._asking: Dict[str, threading.Thread] = {}

    def survey(self, providers: List[Provider]) -> Tuple[List[JSON], Dict[str, str]]:
        deadline = time.monotonic() + self.patience
        threads = {provider.name: self._ask(provider) for provider in providers}
        silent = set()
        for name, thread in threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                silent.add(name)
        with self._lock:
            errors = {name: f"no answer within {self.patience:g} s" for name in threads if name in silent}
            errors.update((n, self._errors[n]) for n in threads if n in self._errors and n not in silent)
            return [model for name in threads for model in self._lists.get(name, ())], errors

    def _ask(self, provider: Provider) -> threading.Thread:
        """Ask one provider, unless it still owes the answer to an earlier survey."""
        with self._lock:
            thread = self._asking.get(provider.name)
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._listen, args=(provider,), daemon=True)
                self._asking[provider.name] = thread
                thread.start()
            return thread

    def _listen(self, provider: Provider) -> None:
        name, models, error = provider.name, None, "internal error"
        try:
            models = [{**m, "id": f"{name}/{m['id']}", "provider": name} for m in provider.models()]
        except Trouble as trouble:
            error = trouble.message
        except STUMBLES:
            error = "its list of models is not of the shape it should have"
        finally:
            with self._lock:
                if models is None:
                    self._errors[name] = error
                else:
                    self._lists[name] = models
                    self._errors.pop(name, None)
