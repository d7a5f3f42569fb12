"""People who use the model service: real requests by the real `openai` client, step by step.

Every step knows what it expects and says what it observed, in figures only: neither a prompt nor an
answer ever stands in a report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2
import openai
from openai.types import CompletionUsage

from gatebook.cli.demo.gateway import TIMEOUT_HEADER
from gatebook.cli.demo.model_file import MODEL_NAME

# Made up and plainly so: they open nothing but the demo's own loopback server.
API_KEYS = {
    "alice": "sk-demo-alice-opens-nothing-0001",
    "bob": "sk-demo-bob-opens-nothing-0002",
    "carol": "sk-demo-carol-opens-nothing-0003",
    "mallory": "sk-demo-mallory-opens-nothing-0004",
}
WRONG_API_KEY = "sk-demo-nobody-opens-nothing-9999"

# What must be found nowhere once the demo is over. All invented: a reserved domain, a made-up card,
# a well-formed key id that opens nothing, a number kept for drama, a textbook IBAN, and an address
# from a documentation network.
PLANTED_SECRETS = {
    "email": "priya.planted@example.org",
    "card": "4539148803436467",
    "aws_key": "AKIA" + "Q3EGZ7NPLX5DEMO2",
    "phone": "+44 20 7946 0958",
    "iban": "DE89370400440532013000",
    "ipv4": "203.0.113.77",
}

BURST_FAILURES = 14
KEY_GUESSES = 12
_END_USER = "end-user-17"
_SHORT_ANSWER_TOKENS = 24
_LONG_ANSWER_TOKENS = 3_500  # some 4 s of work for the model: enough to leave or to lose patience
_PATIENCE_SECONDS = 0.15
_CLIENT_TIMEOUT_SECONDS = 60.0
_CHUNKS_BEFORE_LEAVING = 6
_NEVER_ENDS_EARLY = {"ignore_eos": True}  # an option of llama.cpp

_SENTENCES = {
    "email": "Please write to {} about the invoice.",
    "card": "Charge it to card {} as before.",
    "aws_key": "Why does {} get access denied?",
    "phone": "Call me back on {} after lunch.",
    "iban": "Refund to {} please.",
    "ipv4": "The request came from {} last night.",
}
_QUESTIONS = {
    "alice": ("How do I sort a list?", "And in reverse order?"),
    "bob": ("What does a river carry?", "Where does it end?", "Why?"),
    "carol": ("Name a stone.", "Name a lighter one."),
}


@dataclass(frozen=True)
class StepResult:
    """What one step did. `observed` holds figures and statuses, never text of a prompt or answer.

    `user` is a name in API_KEYS, or `nobody` where the key is wrong. `requests` counts the HTTP
    requests the step sent, including those that were refused or abandoned.
    """

    name: str
    user: str
    expected: str
    observed: str
    ok: bool
    requests: int


@dataclass(frozen=True)
class ScenarioReport:
    """All steps in order. `requests_sent` counts requests given to the network, answered or not."""

    requests_sent: int
    steps: list[StepResult]

    @property
    def ok(self) -> bool:
        """Whether every step observed what it expected."""
        return all(step.ok for step in self.steps)


@dataclass(frozen=True)
class _Observation:
    text: str
    ok: bool


_Action = Callable[[openai.OpenAI], _Observation]


@dataclass(frozen=True)
class _Step:
    name: str
    user: str
    expected: str
    act: _Action
    api_key: str


def run_scenario(
    base_url: str,
    requests_scale: int = 1,
    on_progress: Callable[[StepResult], None] | None = None,
) -> ScenarioReport:
    """Drive the service at `base_url` (no /v1) through every step; 54 requests, 1 to 5 s.

    `requests_scale` repeats the ordinary traffic, not the incidents. `on_progress` is called after
    each step. A step that goes wrong is reported with ok=False and the next one is tried.
    """
    runner = _Runner(base_url)
    results = []
    for step in _steps(requests_scale):
        result = runner.run(step)
        results.append(result)
        if on_progress is not None:
            on_progress(result)
    return ScenarioReport(requests_sent=runner.requests_sent, steps=results)


class _Runner:
    """Runs steps, each with a client of its own, and counts what really goes out."""

    def __init__(self, base_url: str) -> None:
        self._base_url = f"{base_url.rstrip('/')}/v1"
        self.requests_sent = 0

    def run(self, step: _Step) -> StepResult:
        before = self.requests_sent
        with self._client(step.api_key) as client:
            try:
                observation = step.act(client)
            except openai.OpenAIError as error:
                observation = _Observation(_describe(error), ok=False)
        requests = self.requests_sent - before
        return StepResult(
            step.name, step.user, step.expected, observation.text, observation.ok, requests
        )

    @contextmanager
    def _client(self, api_key: str) -> Iterator[openai.OpenAI]:
        # Counted where requests leave, so a retry or a forgotten call could not escape the count.
        http_client = openai.DefaultHttpxClient(
            trust_env=False, event_hooks={"request": [self._count]}
        )
        with openai.OpenAI(
            base_url=self._base_url,
            api_key=api_key,
            max_retries=0,
            timeout=_CLIENT_TIMEOUT_SECONDS,
            http_client=http_client,
        ) as client:
            yield client

    def _count(self, _: httpx2.Request) -> None:
        self.requests_sent += 1


def _steps(requests_scale: int) -> Iterator[_Step]:
    for _ in range(requests_scale):
        yield from _ordinary_steps()
    yield from _secret_steps()
    yield from _failure_steps()
    yield from _incident_steps()


def _ordinary_steps() -> Iterator[_Step]:
    yield _step("chat", "alice", "200 with usage", _chat)
    yield _step("chat, streamed", "bob", "200, chunks and usage", _chat_streamed)
    yield _step("completion", "carol", "200 with usage", _completion)
    yield _step("embeddings", "carol", "200 with vectors", _embeddings)
    yield _step("chat for an end user", "alice", "200 with usage", _chat_for_end_user)
    for user, questions in _QUESTIONS.items():
        expected = f"{len(questions)} x 200"
        yield _step("conversation", user, expected, _conversation(questions))


def _secret_steps() -> Iterator[_Step]:
    for kind, secret in PLANTED_SECRETS.items():
        prompt = _SENTENCES[kind].format(secret)
        yield _step(f"chat holding a secret ({kind})", "bob", "200 with usage", _asking(prompt))
    yield _step("stream holding secrets", "alice", "200, chunks and usage", _stream_with_secrets)
    yield _step("completion holding a secret", "carol", "200 with usage", _completion_with_secret)
    yield _step("embeddings of a secret", "carol", "200 with vectors", _embeddings_of_secret)


def _failure_steps() -> Iterator[_Step]:
    wrong = _step("wrong API key", "nobody", "401", _refused(401), api_key=WRONG_API_KEY)
    yield wrong
    yield _step("invalid body holding a secret", "carol", "400", _invalid_body)
    yield _step("error quoting a secret", "carol", "400", _error_quoting_secret)
    yield _step("prompt longer than the context", "bob", "400", _prompt_too_long)
    yield _step("time-out holding a secret", "bob", "504", _time_out)
    yield _step("client leaves mid-stream", "alice", "closed after chunks", _leave_mid_stream)
    yield _step("client leaves before the answer", "bob", "closed, no answer", _leave_before_answer)


def _incident_steps() -> Iterator[_Step]:
    expected = f"{BURST_FAILURES} x 400"
    yield _step("burst of failures", "mallory", expected, _burst_of_failures)
    expected = f"{KEY_GUESSES} x 401"
    yield _step("keys guessed", "nobody", expected, _keys_guessed, api_key=WRONG_API_KEY)


def _step(name: str, user: str, expected: str, act: _Action, api_key: str | None = None) -> _Step:
    return _Step(name, user, expected, act, api_key or API_KEYS[user])


# Ordinary traffic


def _chat(client: openai.OpenAI) -> _Observation:
    return _ask(client, "Tell me about stones.", temperature=0.7, top_p=0.9, seed=7)


def _chat_for_end_user(client: openai.OpenAI) -> _Observation:
    return _ask(client, "Which window is open?", user=_END_USER)


def _asking(prompt: str) -> _Action:
    return lambda client: _ask(client, prompt)


def _ask(client: openai.OpenAI, prompt: str, **options: Any) -> _Observation:
    answer = client.chat.completions.create(
        model=MODEL_NAME,
        messages=[
            {"role": "system", "content": "You are a small model. Be brief."},
            {"role": "user", "content": prompt},
        ],
        max_tokens=_SHORT_ANSWER_TOKENS,
        **options,
    )
    return _observe_usage(answer.usage, f"finish {answer.choices[0].finish_reason}")


def _chat_streamed(client: openai.OpenAI) -> _Observation:
    return _stream(client, "Show me the garden.")


def _stream(client: openai.OpenAI, prompt: str) -> _Observation:
    chunks, usage = 0, None
    stream = client.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=_SHORT_ANSWER_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        chunks += 1
        usage = chunk.usage or usage
    observation = _observe_usage(usage, f"{chunks} chunks")
    return _Observation(observation.text, observation.ok and chunks > 1)


def _completion(client: openai.OpenAI, prompt: str = "The morning was") -> _Observation:
    answer = client.completions.create(
        model=MODEL_NAME, prompt=prompt, max_tokens=_SHORT_ANSWER_TOKENS, stop=["\n"]
    )
    return _observe_usage(answer.usage, f"finish {answer.choices[0].finish_reason}")


def _embeddings(
    client: openai.OpenAI, texts: tuple[str, ...] = ("a river", "a road")
) -> _Observation:
    answer = client.embeddings.create(model=MODEL_NAME, input=list(texts), encoding_format="float")
    lengths = {len(item.embedding) for item in answer.data}
    ok = len(answer.data) == len(texts) and lengths != {0} and answer.usage.prompt_tokens > 0
    counted = f"{len(answer.data)} vectors, {answer.usage.prompt_tokens} tokens in"
    return _Observation(f"200, {counted}", ok)


def _conversation(questions: tuple[str, ...]) -> _Action:
    def act(client: openai.OpenAI) -> _Observation:
        messages: list[Any] = []
        for question in questions:
            messages.append({"role": "user", "content": question})
            answer = client.chat.completions.create(
                model=MODEL_NAME, messages=messages, max_tokens=_SHORT_ANSWER_TOKENS
            )
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        return _Observation(f"{len(questions)} x 200", ok=True)

    return act


def _observe_usage(usage: CompletionUsage | None, detail: str) -> _Observation:
    if usage is None:
        return _Observation(f"200, {detail}, no usage", ok=False)
    tokens = f"{usage.prompt_tokens} tokens in, {usage.completion_tokens} out"
    ok = usage.prompt_tokens > 0 and usage.completion_tokens > 0
    return _Observation(f"200, {detail}, {tokens}", ok)


# Secrets in other places


def _stream_with_secrets(client: openai.OpenAI) -> _Observation:
    return _stream(client, " ".join(PLANTED_SECRETS.values()))


def _completion_with_secret(client: openai.OpenAI) -> _Observation:
    return _completion(client, f"My card is {PLANTED_SECRETS['card']} and")


def _embeddings_of_secret(client: openai.OpenAI) -> _Observation:
    return _embeddings(client, (f"contact {PLANTED_SECRETS['email']}",))


# Failures


def _refused(status: int) -> _Action:
    return lambda client: _observe_status(lambda: _ask(client, "Who am I?"), status)


def _invalid_body(client: openai.OpenAI) -> _Observation:
    """Messages that are no array: llama.cpp refuses them."""
    return _observe_status(lambda: _ask_with_invalid_body(client, PLANTED_SECRETS["email"]), 400)


def _ask_with_invalid_body(client: openai.OpenAI, text: str) -> None:
    client.chat.completions.create(model=MODEL_NAME, messages=cast(Any, text))


def _error_quoting_secret(client: openai.OpenAI) -> _Observation:
    """llama.cpp repeats an unknown tool_choice in its error, so the answer leaks it as well."""
    choice = cast(Any, PLANTED_SECRETS["card"])
    return _observe_status(lambda: _ask(client, "Use a tool.", tool_choice=choice), 400)


def _prompt_too_long(client: openai.OpenAI) -> _Observation:
    return _observe_status(lambda: _ask(client, "word " * 3_000), 400)


def _time_out(client: openai.OpenAI) -> _Observation:
    headers = {TIMEOUT_HEADER: str(_PATIENCE_SECONDS)}
    prompt = f"Call {PLANTED_SECRETS['phone']}."
    return _observe_status(lambda: _ask_at_length(client, prompt, extra_headers=headers), 504)


def _leave_mid_stream(client: openai.OpenAI) -> _Observation:
    """Read a few chunks, then close the connection while the model is still writing."""
    stream = client.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": "Go on and on."}],
        max_tokens=_LONG_ANSWER_TOKENS,
        stream=True,
        extra_body=_NEVER_ENDS_EARLY,
    )
    chunks = 0
    for chunk in stream:
        chunks += 1
        if chunks == _CHUNKS_BEFORE_LEAVING or chunk.choices[0].finish_reason:
            break
    # HTTP/1.1 has no other way to abandon an answer: closing it closes the TCP connection.
    stream.close()
    ok = chunks == _CHUNKS_BEFORE_LEAVING
    return _Observation(f"200, closed after {chunks} chunks", ok)


def _leave_before_answer(client: openai.OpenAI) -> _Observation:
    try:
        _ask_at_length(client, "Take your time.", timeout=_PATIENCE_SECONDS)
    except openai.APITimeoutError:
        return _Observation("closed, no answer", ok=True)
    return _Observation("200", ok=False)


def _ask_at_length(client: openai.OpenAI, prompt: str, **options: Any) -> None:
    client.chat.completions.create(
        model=MODEL_NAME,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=_LONG_ANSWER_TOKENS,
        extra_body=_NEVER_ENDS_EARLY,
        **options,
    )


# Incidents


def _burst_of_failures(client: openai.OpenAI) -> _Observation:
    return _repeat(BURST_FAILURES, 400, lambda: _ask_with_invalid_body(client, "probe"))


def _keys_guessed(client: openai.OpenAI) -> _Observation:
    return _repeat(KEY_GUESSES, 401, lambda: _ask(client, "Let me in."))


def _repeat(times: int, status: int, act: Callable[[], object]) -> _Observation:
    started = time.monotonic()
    seen = [_observe_status(act, status) for _ in range(times)]
    seconds = time.monotonic() - started
    matching = sum(observation.ok for observation in seen)
    return _Observation(f"{matching} x {status} in {seconds:.1f} s", ok=matching == times)


def _observe_status(act: Callable[[], object], status: int) -> _Observation:
    """Act, and expect to be answered with this error status."""
    try:
        act()
    except openai.APIStatusError as error:
        return _Observation(_describe(error), ok=error.status_code == status)
    return _Observation("200", ok=False)


def _describe(error: openai.OpenAIError) -> str:
    """The status and kind of an error; never its message, which may quote the request."""
    status = f"{error.status_code} " if isinstance(error, openai.APIStatusError) else ""
    return f"{status}{type(error).__name__}"
