"""Texts that ship by code: what is said to models and what stands in their logs.

Each carrier (a sentence, a JSON document, a log line) is one group, so that all texts of one
carrier are in the same half, and nothing is reported on a form that anything was tuned on.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from urllib.parse import quote

from stdnum import luhn
from tests.benchmarks.redaction import scorer, values
from tests.benchmarks.redaction.scorer import Label, Sample
from tests.benchmarks.redaction.values import HEX, filled, some

SEED = 20
TEXTS_PER_CARRIER = 8
NEGATIVES_PER_CARRIER = 3

LABELLED = (
    "My {l} is {v}, can you check?",
    "Please update my {l} to {v}.",
    "the {l}: {v}",
    "I typed {v} as my {l} and it failed",
    "User: here is the {l} you asked for: {v}\nAssistant: Thank you, noted.",
    "- {l}: **{v}**\n- status: open",
    "{l}\t{v}\tok",
    "| field | value |\n|---|---|\n| {l} | {v} |",
    "{l} = {v}; anything else?",
    "What should I do with the {l} {v} that a customer sent me?",
    "Meine {l} lautet {v}, bitte speichern.",
    "Mi {l} es {v}. ¿Puede confirmarlo?",
    "Mon {l} : {v} (à vérifier)",
    "我的{l}是{v}，谢谢",  # noqa: RUF001 - as one writes it
    "Мой {l}: {v}. Спасибо",
    "{l} ({v}) belongs to the person on the second page",
    "name: test\n{k}: {v}\nactive: true\n",
    "id,{k},note\n42,{v},checked\n",
    "UPDATE people SET {k} = '{v}' WHERE id = 7;",
    "2026-03-04T10:11:12.345Z INFO intake {k}={v} status=200 took=12ms",
    'level=warn msg="could not verify {l}" {k}="{v}" attempt=2',
    "<record><{k}>{v}</{k}></record>",
    "Traceback (most recent call last):\n  File \"app.py\", line 12\nValueError: bad {l} '{v}'",
)
LABELLED_JSON = (
    '{{"{k}": "{v}", "ok": true}}',
    '{{"messages": [{{"role": "user", "content": "my {l} is {v}\\nthanks"}}]}}',
    '[{{"id": 1, "{k}": null}}, {{"id": 2, "{k}": "{v}"}}]',
    '{{"type": "tool_result", "content": [{{"type": "text", "text": "{l}: {v}"}}]}}',
    '{{"event": "form", "fields": {{"{k}": {{"value": "{v}", "valid": true}}}}}}',
)
LABELLED_NESTED = (
    '{{"name": "lookup", "arguments": "{{\\"{k}\\": \\"{v}\\", \\"limit\\": 3}}"}}',
    '{{"tool_calls": [{{"function": {{"arguments": "{{\\"{k}\\":\\"{v}\\"}}"}}}}]}}',
)
LABELLED_URL = (
    "GET /v1/check?{k}={v}&lang=en HTTP/1.1",
    "see https://app.example.com/find?q=1&{k}={v} for it",
)
BARE = (
    "{v}",
    "It is {v}.",
    "({v})",
    "seen at {v} and nowhere else",
    '["{v}", "x"]',
    "use {v}\n",
    "found: {v}; next",
    "Why does it print <{v}> here?",
    "{v}, as always",
    "`{v}`",
    "请看{v}。",
    "Summarise this ticket: customer wrote {v} twice",
)


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called, and whether its form alone tells what it is."""

    name: str
    make: Callable[[Random], str]
    called: tuple[str, ...]
    evident: bool = True


POSITIVES = (
    Kind(scorer.CARD, values.card, ("card number", "credit card", "PAN", "debit card", "card")),
    Kind(scorer.IBAN, values.iban, ("IBAN", "account number", "bank account", "iban")),
    Kind(scorer.SSN, values.ssn, ("SSN", "social security number", "ssn")),
    Kind(scorer.SSN, values.ssn_without_dashes, ("SSN", "social security number", "ssn"), False),
    Kind(scorer.MAIL, values.mail, ("email", "e-mail address", "contact", "login")),
    Kind(scorer.IP, values.ip, ("IP", "client address", "remote_addr", "host")),
    Kind(scorer.PHONE, values.phone, ("phone", "phone number", "mobile", "tel")),
    Kind(scorer.PHONE, values.national_phone, ("phone", "telephone", "mobile", "tel"), False),
    Kind(scorer.MAC, values.mac, ("MAC address", "mac", "hardware address")),
    Kind(scorer.CRYPTO, values.crypto, ("wallet", "wallet address", "deposit address")),
    Kind(scorer.BIRTH_DATE, values.birth_date,
         ("date of birth", "DOB", "birthday", "birth date", "Geburtsdatum"), False),
    Kind(scorer.SECRET, values.vendor_key, ("api key", "access token", "credential")),
    Kind(scorer.SECRET, values.jwt, ("token", "id token", "session")),
    Kind(scorer.SECRET, values.private_key, ("private key", "deploy key")),
    Kind(scorer.SECRET, values.generic_key, ("api key", "client secret", "secret key",
         "access token", "auth token"), False),
    Kind(scorer.SECRET, values.password, ("password", "passwd", "db password"), False),
)  # fmt: skip

# A password inside something longer: only it is sensitive. ⟦ and ⟧ mark it.
CONNECTIONS = (
    "postgres://app:⟦{p}⟧@db.example.com:5432/main",
    "DATABASE_URL=mysql://root:⟦{p}⟧@localhost/shop?charset=utf8",
    "mongodb+srv://svc:⟦{p}⟧@cluster0.example.mongodb.net/?retryWrites=true",
    "redis://:⟦{p}⟧@cache.internal:6379/0",
    "amqp://guest:⟦{p}⟧@mq:5672//",
    "Server=tcp:sql.example.com,1433;Database=x;User Id=sa;Password=⟦{p}⟧;Encrypt=true;",
    "host=db user=app password=⟦{p}⟧ dbname=main sslmode=require",
    "jdbc:mysql://db.example.com/x?user=app&password=⟦{p}⟧&useSSL=true",
    "DefaultEndpointsProtocol=https;AccountName=st;AccountKey=⟦{b}⟧;EndpointSuffix=core.windows.net",
    "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=⟦{c}⟧",
    "curl -u admin:⟦{p}⟧ https://api.example.com/v1/me",
    "curl -H 'Authorization: Bearer ⟦{g}⟧' https://api.example.com/v1/me",
    "Authorization: Basic ⟦{a}⟧",
    '{"headers": {"authorization": "Bearer ⟦{g}⟧", "accept": "*/*"}}',
    '{"headers": {"x-api-key": "⟦{g}⟧", "content-length": "18"}}',
    "git clone https://oauth2:⟦{p}⟧@git.example.com/team/app.git",
    "export API_TOKEN=⟦{g}⟧ && ./run.sh",
    "mysql -h db -u app --password=⟦{p}⟧ -e 'select 1'",
    "spring.datasource.password=⟦{p}⟧\nspring.datasource.username=app\n",
    "aws_secret_access_key = ⟦{w}⟧\nregion = eu-west-1\n",
    "sshpass -p '⟦{p}⟧' ssh root@host",
    "ENV SECRET_KEY=⟦{g}⟧\nRUN make",
    'client = Client(api_key="⟦{g}⟧", timeout=3)',
    "the wifi password is ⟦{p}⟧ and it works upstairs",
)


# ---- what looks like one and is none -----------------------------------------------------------


def _no_card(draw: Random, form: str) -> str:
    """Digits in this form, their Luhn sum wrong."""
    while True:
        written = filled(form, draw)
        if not luhn.is_valid(re.sub(r"\D", "", written)):
            return written


def _uuid(draw: Random) -> str:
    return values.grouped(some(draw, HEX, 32), (8, 4, 4, 4, 12), "-")


def _isbn13(draw: Random) -> str:
    digits = f"978{some(draw, string.digits, 9)}"
    total = sum(int(d) * (1, 3)[n % 2] for n, d in enumerate(digits))
    return values.grouped(digits + str(-total % 10), (3, 1, 4, 4, 1), "-")


NEGATIVES = (
    Kind("", lambda d: filled("{ORD|INV|PO|SO}-####-#####", d), ("order number", "invoice")),
    Kind("", lambda d: _no_card(d, "#### #### #### ####"), ("order number", "reference")),
    Kind("", lambda d: _no_card(d, "################"), ("order id", "tracking number")),
    Kind("", lambda d: filled("###-#######-#######", d), ("order number",)),
    Kind("", lambda d: filled("{1|2|3|10}.#.{1#|2#|#}", d), ("version", "release")),
    Kind("", lambda d: filled("v{1|2|3}.#.#.#", d), ("version", "build")),
    Kind("", lambda d: filled("10.0.{19041|22621|17763}.####", d), ("build", "Windows version")),
    Kind("", lambda d: filled("17########", d), ("timestamp", "created", "epoch")),
    Kind("", lambda d: filled("17###########", d), ("timestamp", "created_ms")),
    Kind("", lambda d: filled("17#################", d), ("time_unix_nano", "sequence")),
    Kind("", lambda d: filled("202#-0#-1# 1#:#{3|4}:{2|5}#", d), ("time", "started")),
    Kind("", lambda d: filled("202#-0#-1#T0#:1#:2#.###Z", d), ("updated_at", "timestamp")),
    Kind("", _uuid, ("request id", "trace", "session id")),
    Kind("", lambda d: some(d, HEX, 40), ("commit", "revision", "sha1")),
    Kind("", lambda d: some(d, HEX, 7), ("commit", "short hash")),
    Kind("", lambda d: "sha256:" + some(d, HEX, 64), ("digest", "image")),
    Kind("", lambda d: some(d, HEX, 32), ("md5", "etag", "checksum", "trace_id")),
    Kind("", lambda d: filled("{$|€|£}#,###.##", d), ("price", "total", "amount")),
    Kind("", lambda d: filled("{12|45|99}###.##", d), ("price", "balance")),
    Kind("", _isbn13, ("ISBN", "book")),
    Kind("", lambda d: filled("####-###{X|#}", d), ("ISSN", "journal")),
    Kind("", lambda d: filled("#.######, -#.######", d), ("coordinates", "position")),
    Kind("", lambda d: filled("1{2|3|4|6}:#{0|5}:{0|5}#", d), ("time", "duration")),
    Kind("", lambda d: filled("web-{6d4b|7f9c|58d9}f####-{x|k}#{z|q}8p", d), ("pod", "instance")),
    Kind("", lambda d: "vite@" + filled("{1|5|20}.#.#", d), ("package", "dependency")),
    Kind("", lambda d: filled("{000|666|9##}-##-####", d), ("part number", "sku")),
    Kind("", lambda d: filled("##-###-####-#", d), ("part number", "case number")),
    Kind("", lambda d: filled("1Z@##@##0{1|3}########", d), ("tracking number",)),
    Kind("", lambda d: filled("#{1|4|8}## x #0## px", d), ("size", "resolution")),
    Kind("", lambda d: filled("@@{89|12} 3704 0044 0532 {0130|9131} 0{1|2}", d), ("batch",)),
    Kind("", lambda d: filled("{std|boost|absl}::{dec|hex|size_t}", d), ("symbol", "type")),
    Kind("", lambda d: d.choice(("root@localhost", "admin@db", "me@web1")), ("prompt", "shell")),
    Kind("", lambda d: d.choice(("${API_KEY}", "<your-api-key>", "YOUR_TOKEN_HERE", "{{ token }}",
         "********", "os.environ['API_KEY']", "xxxxxxxx", "None", "null")),
         ("api key", "password", "token", "secret")),
    Kind("", lambda d: d.choice(("4096", "128000", "512")), ("max_tokens", "token count")),
)  # fmt: skip

PROSE = (
    "How do I reset a forgotten password without access to my email?",
    "Explain how tokens are counted, and why max_tokens=4096 cuts my answer off.",
    "password: required\ntoken: optional\nsecret: none",
    "The api key is missing, the token expired, the password is wrong.",
    "Write a haiku about secret gardens and public keys.",
    "The password field is required; the secret key to success is practice.",
    "Chapter 12, pages 345-678, mentions 1984, 2001 and 42 as famous numbers.",
    "Phone support is open 9:00-17:30, Monday to Friday, except 24-26 December.",
    "In 2023-2024 revenue rose 12.5% to 1,234,567,890 dollars.",
    "Use a bearer token in the Authorization header, never a cookie.",
    "Compare IPv4 and IPv6: how long is an address, how is it written?",
    "Which card networks are accepted in Japan, and what is an IBAN?",
    "Is 3.14159265358979323846 enough digits of pi?",
    "Refactor `def key(self): return self._key` and rename token to symbol.",
    "The ratio is 16:9 at 60 fps; the score was 3-2 after extra time.",
    "SELECT count(*) FROM orders WHERE created_at > '2026-01-01 00:00:00';",
    "for i in range(10_000_000): total += i ** 2  # 333333283333335000000",
    "My birthday party is on Saturday; the meeting moved to 2026-05-12.",
    "pip install requests==2.34.2 numpy==2.4.6 && python -m http.server 8080",
    "HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 1024\n",
    "Colours: #ff0000, rgb(12, 34, 56); sizes: 10px 20px 30px 40px.",
    "Flight LH1234 leaves gate B22 at 18:45, seat 12A, booking class Y.",
)


def samples() -> list[Sample]:
    """All texts, the same every time."""
    return [*_positives(), *_connections(), *_negatives(), *_prose()]


def _positives() -> Iterator[Sample]:
    for number, kind in enumerate(POSITIVES):
        for carrier, escape in _carriers(kind):
            for turn in range(TEXTS_PER_CARRIER):
                draw = Random(f"{SEED}:{number}:{carrier}:{turn}")
                yield _filled(carrier, escape, kind, draw)
    for carrier, escape in _labelled():
        for turn in range(TEXTS_PER_CARRIER):
            draw = Random(f"{SEED}:national:{carrier}:{turn}")
            called, written = values.national_id(draw)
            kind = Kind(scorer.NATIONAL_ID, lambda _, value=written: value, (called,))
            yield _filled(carrier, escape, kind, draw)


def _negatives() -> Iterator[Sample]:
    for number, kind in enumerate(NEGATIVES):
        for carrier, escape in _labelled():
            for turn in range(NEGATIVES_PER_CARRIER):
                draw = Random(f"{SEED}:not:{number}:{carrier}:{turn}")
                yield _filled(carrier, escape, kind, draw)


def _connections() -> Iterator[Sample]:
    for carrier in CONNECTIONS:
        for turn in range(TEXTS_PER_CARRIER):
            draw = Random(f"{SEED}:{carrier}:{turn}")
            text = carrier.replace("{p}", values.password(draw).replace("$", "S"))
            text = text.replace("{g}", values.generic_key(draw))
            text = text.replace("{a}", values.b64encode(draw.randbytes(15)).decode())
            text = text.replace("{b}", values.b64encode(draw.randbytes(64)).decode())
            text = text.replace("{c}", values.b64encode(draw.randbytes(32)).decode())
            text = text.replace("{w}", some(draw, values.BASE64, 40))
            begin, end = text.index("⟦"), text.index("⟧") - 1
            plain = text.replace("⟦", "").replace("⟧", "")
            yield Sample(plain, (Label(scorer.SECRET, begin, end),), carrier, "generated")


def _prose() -> Iterator[Sample]:
    for text in PROSE:
        yield Sample(text, (), text, "generated")


Escape = Callable[[str], str]


def _carriers(kind: Kind) -> Iterator[tuple[str, Escape]]:
    yield from _labelled()
    if kind.evident:
        yield from ((carrier, _as_is) for carrier in BARE)


def _labelled() -> Iterator[tuple[str, Escape]]:
    yield from ((carrier, _as_is) for carrier in LABELLED)
    yield from ((carrier, _in_json) for carrier in LABELLED_JSON)
    yield from ((carrier, _in_nested_json) for carrier in LABELLED_NESTED)
    yield from ((carrier, _in_url) for carrier in LABELLED_URL)


def _as_is(value: str) -> str:
    return value


def _in_json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _in_nested_json(value: str) -> str:
    return _in_json(_in_json(value))


def _in_url(value: str) -> str:
    return quote(value, safe=":@")


def _filled(carrier: str, escape: Escape, kind: Kind, draw: Random) -> Sample:
    """The carrier with a value in it; what is labelled is the value as it stands there."""
    called, value = draw.choice(kind.called), escape(kind.make(draw))
    if escape is not _as_is:
        carrier = carrier.replace("{{", "{").replace("}}", "}")
    text = carrier.replace("{l}", called).replace("{k}", re.sub(r"\W+", "_", called.lower()))
    begin = text.index("{v}")
    labels = (Label(kind.name, begin, begin + len(value)),) if kind.name else ()
    return Sample(text.replace("{v}", value), labels, carrier, "generated")
