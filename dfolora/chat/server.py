"""A chat behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, ``transformers serve``, or a hosted one."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from dfolora.chat import wire
from dfolora.chat.chat import Chat, Keep, Reply, Request
from dfolora.chat.ledger import Ledger
from dfolora.chat.patience import Patience
from dfolora.chat.secret import USUAL, Secret
from dfolora.errors import UserError

_LOCAL = ("localhost", "127.0.0.1", "::1")
_ABSENT_ATTEMPTS = 2  # of a server that was never heard of: a wrong address should not take half a minute to tell


class _Stopped(Exception):
    """Another call failed for good, or the user interrupts: no more attempts."""


class ServerChat(Chat):
    """Asks a server, some calls at once, and again where a call fails for a reason that may pass.

    Such reasons are no connection, a cut one, a time-out, status 408, 429 and 5xx, and a reply that is none. A server
    that refuses an option is asked without it from then on, with a warning where that changes how texts are drawn.
    """

    def __init__(
        self, model: str | None, base_url: str, *, key_variable: str = USUAL, concurrency: int = 8,
        timeout: float = 120.0, patience: Patience | None = None, ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        """Get ready; nothing is sent but, where no model is named, the question which one there is.

        Args:
            model: what the server calls it; None: the only one that it has.
            base_url: of the server, such as ``http://localhost:8000/v1``.
            key_variable: the environment variable that holds the key.
            concurrency: most calls at once.
            timeout: seconds that the server may say nothing before a call counts as failed.
            patience: when to try again.
            ledger: counts calls and tokens; None: a new one.

        Raises:
            UserError: an option that cannot work, no package ``openai``, or no telling which model.
        """
        if concurrency < 1:
            raise UserError(f"concurrency: {concurrency} cannot work; the least is 1 call at once")
        if not timeout > 0:
            raise UserError(f"timeout: {timeout} cannot work; it is a number of seconds above 0")
        self.base_url = _checked(base_url)
        self.concurrency, self.timeout, self.patience = concurrency, timeout, patience or Patience()
        self.secret = Secret(key_variable)
        self.refused: set[str] = set()
        self._reached = False
        self._lock = threading.Lock()
        super().__init__(model or "", ledger)
        if not model:
            self.name = self._only_model()

    def answer(self, requests: Sequence[Request], keep: Keep) -> None:
        with self._client() as client:
            self._together(client, requests, keep)

    def _together(self, client: Any, requests: Sequence[Request], keep: Keep) -> None:
        stopped = threading.Event()
        pool = ThreadPoolExecutor(min(self.concurrency, max(1, len(requests))), "chat")
        futures: list[Future[None]] = []
        try:
            for number, request in enumerate(requests):
                futures.append(pool.submit(self._all_texts, client, number, request, keep, stopped))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # What is on its way is paid for: it is waited for, and handed over.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
        failed = [future.exception() for future in futures if not future.cancelled()]
        for error in failed:
            if error is not None and not isinstance(error, _Stopped):
                raise error

    def _all_texts(self, client: Any, number: int, request: Request, keep: Keep, stopped: threading.Event) -> None:
        """Call until there are n texts: some servers give one a call, whatever they are told."""
        try:
            there = 0
            while there < request.n:
                seed = None if request.seed is None else request.seed + there
                reply = self._call(client, replace(request, n=request.n - there, seed=seed), stopped)
                there += len(reply.texts)
                keep(number, reply)
        except BaseException:
            stopped.set()
            raise

    def _call(self, client: Any, request: Request, stopped: threading.Event) -> Reply:
        """One call that is paid for, after as many attempts as it takes."""
        if stopped.is_set():
            raise _Stopped
        self.ledger.take()
        try:
            reply = self._attempts(client, request, stopped)
        except BaseException:
            self.ledger.give_back()
            raise
        self.ledger.book(reply.prompt_tokens, reply.completion_tokens)
        return reply

    def _attempts(self, client: Any, request: Request, stopped: threading.Event) -> Reply:
        import openai

        failed = 0
        while True:
            said = wire.body(self.name, request, self.refused)
            started = time.monotonic()
            retry_after, absent = None, False
            try:
                response = client.chat.completions.with_raw_response.create(**said)
                self._reached = True
                return wire.reply(json.loads(response.content), request, time.monotonic() - started)
            except openai.APIStatusError as error:
                self._reached = True
                if error.status_code in (400, 422) and self._adapt(error, said):
                    continue
                if not _passing(error):
                    raise self._refused(error) from None
                reason, retry_after = f"status {error.status_code}", error.response.headers.get("retry-after")
            except openai.APITimeoutError:
                reason = f"no answer within {self.timeout:g} s"
            except openai.APIConnectionError as error:
                reason = str(error.__cause__ or error)
                absent = not self._reached and type(error.__cause__).__name__ == "ConnectError"
            except (wire.BadReply, ValueError, openai.OpenAIError) as error:
                reason = str(error) if isinstance(error, wire.BadReply) else "its reply is not JSON"
            failed += 1
            pause = self.patience.wait(failed, retry_after)
            if absent and failed >= _ABSENT_ATTEMPTS:
                raise self._absent(reason)
            if pause is None:
                advice = f", which asks to wait {retry_after} s" if retry_after else ""
                raise UserError(
                    self._line(
                        f"base_url: the server at {self.base_url!r} failed {failed} times in a row ({reason}{advice}); "
                        "replies so far are in the cache; try again later, or with less concurrency or a longer timeout"
                    )
                )
            (self.patience.sleep or stopped.wait)(pause)
            if stopped.is_set():
                raise _Stopped

    def _absent(self, reason: str) -> UserError:
        return UserError(
            self._line(f"base_url: no server answers at {self.base_url!r} ({reason}); start it, or correct the address")
        )

    def _adapt(self, error: Any, said: dict[str, Any]) -> bool:
        """Leave out from now on what the server refuses; whether there is such a thing."""
        name = wire.refusal(error.body, error.response.text, said)
        if name is None:
            return False
        with self._lock:
            new = name not in self.refused
            self.refused.add(name)
        if new and name in ("temperature", "top_p", "seed"):
            warnings.warn(f"{name}: the server at {self.base_url!r} does not take it; its own holds", stacklevel=2)
        return True

    def _refused(self, error: Any) -> UserError:
        """The error for a status that will not pass."""
        what = f"{error.status_code}: {_reason(error)}"
        where = f"the server at {self.base_url!r}"
        if error.status_code in (401, 403):
            if self.secret:
                return UserError(
                    self._line(f"key_variable: {where} refuses the key in {self.secret.variable} ({what})")
                )
            return UserError(self._line(f"key_variable: {where} wants a key ({what}); set {self.secret.variable}"))
        if error.status_code == 404:
            return UserError(
                self._line(
                    f"model: {where} knows no {self.name!r} ({what}); see {self.base_url}/models, and whether the "
                    "address ends as it should, often in /v1"
                )
            )
        return UserError(self._line(f"base_url: {where} refuses the request ({what})"))

    def _only_model(self) -> str:
        """The server's only model.

        Raises:
            UserError: it has several or none, or does not say.
        """
        client = self._client()
        import openai

        try:
            with client:
                answer = json.loads(client.models.with_raw_response.list().content)
            names = [str(one["id"]) for one in answer["data"]]
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            raise self._absent(str(error.__cause__ or error)) from None
        except (ValueError, KeyError, TypeError, openai.OpenAIError):
            names = []
        self._reached = True
        if len(names) == 1:
            return names[0]
        several = f"has {len(names)} ({', '.join(names):.200})" if names else "does not say which it has"
        raise UserError(self._line(f"model: which one? the server at {self.base_url!r} {several}"))

    def _line(self, text: str) -> str:
        """One line without the key."""
        return self.secret.hide(" ".join(text.split()))

    def _client(self) -> Any:
        """OpenAI's client, to be closed; made when something is asked, as a run may be replayed without it."""
        try:
            import openai
        except ImportError as error:
            raise UserError("base_url: needs the package openai; pip install 'dfolora[api]'") from error
        local = urllib.parse.urlsplit(self.base_url).hostname in _LOCAL  # a proxy does not lead to this machine
        return openai.OpenAI(
            base_url=self.base_url, api_key=self.secret.reveal(), timeout=self.timeout, max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=not local),
        )  # fmt: skip


def _checked(base_url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(base_url)
        secret = bool(parts.username or parts.password or parts.query)
        works = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        works = secret = False
    if secret:
        raise UserError("base_url: has a name, password or query in it; a key belongs in an environment variable")
    if not works:
        raise UserError(f"base_url: {base_url!r} is no address; say for example http://localhost:8000/v1")
    return base_url.rstrip("/")


def _passing(error: Any) -> bool:
    """Whether a status may be another one soon."""
    if error.code == "insufficient_quota":  # comes as 429, but only money helps
        return False
    return error.status_code in (408, 429) or error.status_code >= 500


def _reason(error: Any) -> str:
    """What a server says of its refusal, in short."""
    body = error.body
    message = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
    return f"{message or error.response.reason_phrase!s:.200}"[:200]
