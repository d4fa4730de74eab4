"""A chat model behind a server with OpenAI's interface: vLLM, llama.cpp, Ollama, ``transformers serve``, hosted ones.

The ``openai`` package sends requests and sends them again: after time-outs, lost connections, 408, 409, 429 and 5xx,
with growing pauses, or as long as ``Retry-After`` asks for. Here is what it leaves open: many requests at once, servers
that do not know a parameter or give fewer answers than asked for, replies that hold nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

from dfolora.chat.base import Chat, Reply, Request
from dfolora.errors import UserError

_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)
_FIRST_CONTACT = 10.0  # seconds in which a server that is there says so


class ServerChat(Chat):
    """Requests to a server, several at a time.

    The key is read from the environment at every call, goes into the request's header, and nowhere else.

    Attributes:
        name: of the model, as the server has it.
        base_url: of the server.
    """

    def __init__(
        self,
        base_url: str,
        api_model: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
    ) -> None:
        """Check the arguments; the server is asked by the first request, or here for its model's name.

        Args:
            base_url, api_model, key_variable, concurrency, timeout, retries: as for ``open_chat``.

        Raises:
            UserError: the ``openai`` package is missing, an address that is none, or no server to tell its model.
        """
        if importlib.util.find_spec("openai") is None:
            raise UserError("base_url: a server is spoken to by the package openai; pip install 'dfolora[api]'")
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"base_url: {base_url!r} is no address of a server, such as http://localhost:8000/v1")
        if address.username or address.password:
            raise UserError(f"base_url: leave the password out of it; set {key_variable} in the environment")
        for option, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise UserError(f"{option}: {value} cannot work; the least is {least}")
        if timeout <= 0:
            raise UserError(f"timeout: {timeout} cannot work; give seconds above 0")
        self.base_url, self._key_variable = base_url, key_variable
        self._concurrency, self._timeout, self._retries = concurrency, timeout, retries
        self._local = address.hostname in _LOCAL
        self._left_out: set[str] = set()  # parameters that the server does not take
        self._limit = "max_tokens"
        self._lock = threading.Lock()
        self._checked = False
        self.name = api_model or self._only_model()

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        self._check()
        error: BaseException | None = None
        with self._client() as client, ThreadPoolExecutor(self._concurrency) as pool:
            waiting: dict[Future[Reply], int] = {}
            todo = iter(enumerate(requests))
            try:
                while True:
                    while error is None and len(waiting) < self._concurrency:
                        place, request = next(todo, (-1, None))
                        if request is None:
                            break
                        waiting[pool.submit(self._answer, client, request)] = place
                    if not waiting:
                        break
                    for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                        place = waiting.pop(done)
                        if done.exception() is None:
                            yield place, done.result()
                        else:  # what is on its way has been paid for, too
                            error = error or done.exception()
            finally:
                for left in waiting:
                    left.cancel()
        if error is not None:
            raise error

    # -- one request --------------------------------------------------------------------------------------------------

    def _answer(self, client: Any, request: Request) -> Reply:
        """All answers to a request, by as many calls as the server needs for them."""
        started, replies = time.monotonic(), list[Reply]()
        while (missing := request.n - sum(len(reply.texts) for reply in replies)) > 0:
            seed = None if request.seed is None else request.seed + len(replies)
            replies.append(self._call(client, request, missing, seed))
        texts = tuple(text for reply in replies for text in reply.texts)[: request.n]
        finish = tuple(each for reply in replies for each in reply.finish)[: request.n]
        prompt = _total([reply.prompt_tokens for reply in replies])
        completion = _total([reply.completion_tokens for reply in replies])
        return Reply(texts, finish, prompt, completion, time.monotonic() - started, calls=len(replies))

    def _call(self, client: Any, request: Request, n: int, seed: int | None) -> Reply:
        """One call; a reply that holds nothing is asked for again."""
        import openai

        for _ in range(self._retries + 1):
            try:
                found = client.chat.completions.create(**self._parameters(request, n, seed))
                reply = _read(found)
            except openai.BadRequestError as error:
                if not self._adapt(error):
                    raise self._refusal(error) from None
                continue
            except openai.APIResponseValidationError:
                continue
            except openai.OpenAIError as error:
                raise self._refusal(error) from None
            except ValueError:  # of no JSON
                continue
            if reply is not None:
                return reply
        raise UserError(f"base_url: {self.base_url!r} has sent {self._retries + 1} replies without an answer in them")

    def _parameters(self, request: Request, n: int, seed: int | None) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        wished = {
            "temperature": request.temperature,
            "top_p": request.top_p if request.top_p < 1 else None,
            "stop": list(request.stop) or None,
            "n": n if n > 1 else None,
            "seed": seed if request.temperature else None,
            self._limit: request.max_tokens,
        }
        taken = {name: value for name, value in wished.items() if value is not None and name not in self._left_out}
        return {"model": self.name, "messages": messages, **taken}

    def _adapt(self, error: Any) -> bool:
        """Leave out, or call otherwise, a parameter that the server complains of; whether there was one."""
        said = f"{getattr(error, 'param', '') or ''} {error}"
        with self._lock:
            if "max_completion_tokens" in said and self._limit == "max_tokens":
                self._limit = "max_completion_tokens"
                return True
            for name in ("temperature", "top_p", "seed", "stop", "n"):
                if name not in self._left_out and re.search(rf"(?<![\w'])['\"`]?{name}\b", said):
                    self._left_out.add(name)
                    warnings.warn(f"{self.base_url} does not take {name}: it is left out", stacklevel=2)
                    return True
        return False

    # -- the server ---------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        import openai

        key = os.environ.get(self._key_variable) or "none"
        options: dict[str, Any] = {}
        if self._local:  # a proxy cannot know this machine's own servers
            options["http_client"] = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(
            api_key=key, base_url=self.base_url, timeout=self._timeout, max_retries=self._retries, **options
        )

    def _check(self) -> None:
        """Ask once whether the server is there, before many requests wait for it."""
        if not self._checked:
            self._models()
            self._checked = True

    def _models(self) -> list[str]:
        """What models the server says it has; none where it does not say."""
        import openai

        try:
            with self._client() as client:
                soon = client.with_options(max_retries=1, timeout=min(self._timeout, _FIRST_CONTACT))
                return [str(model.id) for model in soon.models.list().data or []]
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.APIConnectionError) as error:
            raise self._refusal(error) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return []  # a server need not have such a list

    def _only_model(self) -> str:
        models = self._models()
        self._checked = True
        if len(models) != 1:
            some = ", ".join(sorted(models)[:5]) or "it does not say which"
            raise UserError(f"api_model: name one of the server's models ({some})")
        return models[0]

    def _refusal(self, error: Any) -> UserError:
        """An error in one line, in which no key stands."""
        import openai

        key = os.environ.get(self._key_variable)
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            what = f"the key in {self._key_variable} is not accepted" if key else f"{self._key_variable} is not set"
            return UserError(f"base_url: {self.base_url!r} refuses ({error.status_code}): {what}")
        if isinstance(error, openai.APITimeoutError):
            return UserError(
                f"timeout: {self.base_url!r} has not answered within {self._timeout:g} s, asked repeatedly"
            )
        if isinstance(error, openai.APIConnectionError):
            return UserError(f"base_url: no server answers at {self.base_url!r}; is it running?")
        body = getattr(error, "body", None)
        said = str(body.get("message") if isinstance(body, dict) and body.get("message") else error)
        said = " ".join(said.replace(key, "***").split() if key else said.split())
        status = getattr(error, "status_code", None)
        hint = f"; is {self.name!r} one of its models?" if status == 404 else ""
        return UserError(
            f"base_url: {self.base_url!r} answers with an error ({status or 'no status'}): {said:.200}{hint}"
        )


def _read(found: Any) -> Reply | None:
    """What a server's reply holds; None where it has no choices."""
    choices = getattr(found, "choices", None)
    if not choices:
        return None
    texts, finish = [], []
    for choice in choices:
        content = getattr(getattr(choice, "message", None), "content", None)
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else getattr(part, "text", None) for part in content]
            content = "".join(part for part in parts if isinstance(part, str))
        texts.append(_THOUGHT.sub("", str(content or "")))
        finish.append("length" if getattr(choice, "finish_reason", None) == "length" else "stop")
    usage = getattr(found, "usage", None)
    tokens = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (int(number) if isinstance(number, int | float) else None for number in tokens)
    return Reply(tuple(texts), tuple(finish), prompt, completion)


def _total(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
