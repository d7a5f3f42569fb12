"""How fast: MB a CPU second on plain chat and on dense values, CPU milliseconds for 1 MB of
hostile bytes. All contenders read the same texts, each in one process."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.benchmarks.redaction import generated, values
from tests.benchmarks.redaction.contender import Running, TookTooLong

TEXT_BYTES = 1024
PLAIN_TEXTS = 256
DENSE_TEXTS = 256
SECONDS = 1.0
LIMIT_SECONDS = 60.0
HOSTILE_BYTES = 1_000_000
PIECE_BYTES = 250_000
"""Below what our redactor takes as one text, so that it reads all of the megabyte."""
HOSTILE_LIMIT_SECONDS = 5.0

SENTENCES = """
Could you explain how a transformer pays attention to words that stand far apart?
Sure: every token asks each other token how much it matters, and sums what it hears.
I have a list of cities and want to sort it by how long the train takes from home.
The function returns early when the list is empty, which is why your test fails.
Please rewrite the second paragraph so that it sounds less formal, but keep the examples.
Here is a shorter version; tell me whether the tone fits what you had in mind.
What would be a good name for a bakery that only opens on rainy days?
In the first step the dough rests for two hours, then it is folded and rests again.
Our users complain that the page loads slowly after the last release, what should I look at?
Start with the network tab, then compare the size of the bundle before and after.
Der Zug kommt heute leider etwas spaeter an, weil ein Baum auf den Gleisen liegt.
The novel has 34 chapters, and the narrator changes in the 7th without any warning.
She asked for three options: a cheap one, a fast one, and one that lasts.
Translate this into French, please: the garden is closed while it is snowing.
Then the compiler says that the borrowed value does not live long enough, but why?
Because the closure outlives the loop, and with it whatever the loop has created.
""".strip().splitlines()


@dataclass(frozen=True)
class Timing:
    """`megabytes_per_second` is per core; `refused` of the texts were answered by a refusal."""

    megabytes_per_second: float
    refused: int
    texts: int


@dataclass(frozen=True)
class Hostile:
    """CPU milliseconds for the megabyte; None: not done within the time given."""

    milliseconds: float | None
    refused: int
    texts: int


def plain_chat() -> list[str]:
    """Turns of a conversation of about 1 KB without any value."""
    draw = Random(5)
    return [_of_size(lambda: draw.choice(SENTENCES), " ", TEXT_BYTES) for _ in range(PLAIN_TEXTS)]


def chat_with_values() -> list[str]:
    """The same with four values a KB: a mail address, a card, a telephone number, an address."""
    draw = Random(8)
    makers = (values.mail, values.card, values.phone, values.ip)
    texts = plain_chat()
    for number, text in enumerate(texts):
        for make in makers:
            at = text.index(" ", draw.randrange(len(text) - 100))
            text = f"{text[:at]} {make(draw)}{text[at:]}"
        texts[number] = text
    return texts


def dense_values() -> list[str]:
    """Texts of about 1 KB, every line of which holds a value: some fourteen."""
    draw = Random(6)
    texts = [s.text for s in generated.samples() if s.labels and len(s.text) < 400]
    return [_of_size(lambda: draw.choice(texts), "\n", TEXT_BYTES) for _ in range(DENSE_TEXTS)]


def _of_size(piece: object, joint: str, size: int) -> str:
    assert callable(piece)
    text = ""
    while len(text) < size:
        text += joint * bool(text) + piece()
    return text


def hostile() -> dict[str, str]:
    """A megabyte (UTF-8) of each shape."""
    draw = Random(7)
    return {name: _cut(text) for name, text in _shapes(draw)}


def _shapes(draw: Random) -> Iterator[tuple[str, str]]:
    size = HOSTILE_BYTES
    yield "random bytes", draw.randbytes(size).decode("latin-1")
    yield "random ASCII", "".join(map(chr, draw.choices(range(32, 127), k=size)))
    yield "one run of digits", "4111111111111111" * (size // 16)
    yield "digit groups", "4111 1111 " * (size // 10)
    yield "a@a@a@", "a@" * (size // 2)
    yield "a.a.a.@", "a.a@a." * (size // 6)
    yield "deep JSON escapes", _nested(size)
    yield "zero-width runs", ("1" + "\u200b" * 50) * (size // 151)
    yield "spaces", "password" + " " * (size - 9) + "x"
    yield "key=key=key=", "api_key=" * (size // 8)
    yield "one long word", "a" * (size - 1) + "!"
    yield "eyJ.eyJ.eyJ.", "eyJhbGciOiJI." * (size // 13)
    yield "-----BEGIN", "-----BEGIN PRIVATE KEY-----\n" * (size // 28)
    yield "+1 (2) +1 (2)", "+1 (415) 555 " * (size // 13)
    yield "://a:://a:", "://a:b" * (size // 6)
    yield "0.0.0.0.0.", "10.1." * (size // 5)
    yield "colons and hex", "a1:b2:" * (size // 6)
    yield "GB82 GB82", "GB82WEST1234" * (size // 12)
    yield "valid cards", "4111111111111111 " * (size // 17 + 1)
    yield "a table of values", _table(draw, size)


def _table(draw: Random, size: int) -> str:
    """Rows of a mail address, a telephone number and a card: each a true one."""
    makers = (values.mail, values.phone, values.card)
    row = "\n".join(",".join(make(draw) for make in makers) for _ in range(1000))
    return (row + "\n") * (size // len(row) + 1)


def _nested(size: int) -> str:
    text = 'x"\\\n'
    while len(text) < size // 4:
        text = json.dumps({"content": text})
    return text * (size // len(text) + 1)


def _cut(text: str) -> str:
    return text.encode("utf-8")[:HOSTILE_BYTES].decode("utf-8", "ignore")


def pieces(text: str) -> list[str]:
    """The text in pieces of at most PIECE_BYTES."""
    raw = text.encode("utf-8")
    cuts = range(0, len(raw), PIECE_BYTES)
    return [raw[at : at + PIECE_BYTES].decode("utf-8", "ignore") for at in cuts]


def throughput(
    contenders: Sequence[Running], texts: Sequence[str], rounds: int
) -> Mapping[str, list[Timing]]:
    """Each contender's rounds; they take turns, so that a slow minute meets all of them."""
    found: dict[str, list[Timing]] = {one.contender.name: [] for one in contenders}
    size = sum(len(text.encode()) for text in texts) / 1e6
    for _ in range(rounds):
        for one in contenders:
            took = one.time(texts, SECONDS, LIMIT_SECONDS)
            speed = size * took["rounds"] / took["cpu_seconds"]
            found[one.contender.name].append(Timing(speed, took["refused"], len(texts)))
    return found


def median_speed(timings: Sequence[Timing]) -> float:
    """MB a second and core."""
    return statistics.median(timing.megabytes_per_second for timing in timings)


def hostile_times(one: Running, texts: Mapping[str, str]) -> dict[str, Hostile]:
    """Each shape in pieces, once."""
    return {name: _hostile(one, pieces(text)) for name, text in texts.items()}


def _hostile(one: Running, texts: Sequence[str]) -> Hostile:
    one.time(["warm 12 a@b"], 0.0, LIMIT_SECONDS)
    try:
        took = one.time(texts, 0.0, HOSTILE_LIMIT_SECONDS)
    except TookTooLong:
        return Hostile(None, 0, len(texts))
    return Hostile(took["cpu_seconds"] * 1000, took["refused"], len(texts))
