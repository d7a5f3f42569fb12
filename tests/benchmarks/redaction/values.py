"""Values of every kind, made by code: valid in form and checksum, nobody's.

Forms are those that issuers publish, not those of our rules. Each function takes a source of
chance and gives one value as somebody would write it.
"""

from __future__ import annotations

import hashlib
import importlib
import ipaddress
import re
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from functools import cache
from random import Random

import phonenumbers
from stdnum import iban as stdnum_iban
from stdnum import luhn, numdb

UPPER = string.ascii_uppercase
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE32 = UPPER + "234567"
BASE64 = ALNUM + "+/"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
URLSAFE = ALNUM + "_-"
_FORM = re.compile(r"\{([^{}]*)\}|[#@]")


def some(draw: Random, alphabet: str, count: int) -> str:
    """That many characters of an alphabet."""
    return "".join(draw.choices(alphabet, k=count))


def filled(form: str, draw: Random) -> str:
    """`#` is a digit, `@` a capital, `{a|b}` one of these, `{yymmdd}` a day as written."""

    def part(match: re.Match[str]) -> str:
        if match[0] in "#@":
            return some(draw, string.digits if match[0] == "#" else UPPER, 1)
        if set(match[1]) <= set("ymd"):
            return _day(match[1], draw)
        return filled(draw.choice(match[1].split("|")), draw)

    return _FORM.sub(part, form)


def _day(form: str, draw: Random) -> str:
    year, month, day = draw.randint(1940, 2004), draw.randint(1, 12), draw.randint(1, 28)
    written = form.replace("yyyy", str(year)).replace("yy", f"{year % 100:02}")
    return written.replace("mm", f"{month:02}").replace("dd", f"{day:02}")


def grouped(text: str, sizes: tuple[int, ...], separator: str) -> str:
    """Groups of these sizes, the last size again and again."""
    parts, at = [], 0
    for number in range(len(text)):
        if at >= len(text):
            break
        size = sizes[min(number, len(sizes) - 1)]
        parts.append(text[at : at + size])
        at += size
    return separator.join(parts)


# ---- cards, accounts ---------------------------------------------------------------------------

NETWORKS = (
    (("4",), (13, 16, 16, 16, 19)),
    (("51", "52", "53", "54", "55", "2221", "2720"), (16,)),
    (("34", "37"), (15,)),
    (("6011", "644", "65"), (16, 16, 19)),
    (("3528", "3589"), (16, 17, 19)),
    (("300", "305", "36", "38"), (14, 14, 16)),
    (("5018", "5020", "5038", "6304", "6759", "6761"), (12, 13, 14, 15, 16, 18, 19)),
    (("62",), (16, 17, 18, 19)),
    (("2200", "2204"), (16,)),
    (("9792",), (16,)),
    (("8199", "6521"), (16,)),
)


def card(draw: Random) -> str:
    """A payment card's number of any network and length."""
    prefixes, lengths = draw.choice(NETWORKS)
    prefix, length = draw.choice(prefixes), draw.choice(lengths)
    digits = prefix + some(draw, string.digits, length - 1 - len(prefix))
    digits += luhn.calc_check_digit(digits)
    separator = draw.choice(("", "", " ", " ", "-"))
    if length in (14, 15) and prefix[0] == "3":
        return grouped(digits, (4, 6, 5), separator)
    return grouped(digits, (4,), separator)


@cache
def _iban_forms() -> dict[str, str]:
    countries = "AT BE BG CH CY CZ DE DK EE ES FI FR GB GR HR HU IE IT LT LU LV MT NL NO PL PT RO"
    countries += " SE SI SK SA AE TR BR IL"
    info = numdb.get("iban").info
    return {code: info(code)[0][1]["bban"] for code in countries.split()}


def iban(draw: Random) -> str:
    """An account number by its country's structure, with a right mod 97."""
    country = draw.choice(sorted(_iban_forms()))
    alphabets = {"n": string.digits, "a": UPPER, "c": UPPER + string.digits}
    bban = "".join(
        some(draw, alphabets[kind], int(count))
        for count, kind in re.findall(r"(\d+)!([nac])", _iban_forms()[country])
    )
    written = country + stdnum_iban.calc_check_digits(f"{country}00{bban}") + bban
    assert stdnum_iban.is_valid(written, check_country=False)
    separator = draw.choice(("", "", " ", " ", " ", "-"))
    written = grouped(written, (4,), separator)
    return written.lower() if draw.random() < 0.1 else written


def crypto(draw: Random) -> str:
    """A wallet's address, its checksum right."""
    kind = draw.randrange(5)
    if kind == 0:
        return "0x" + some(draw, HEX, 40)
    if kind == 1:
        return _bech32("bc", [0, *draw.choices(range(32), k=32)])
    version = draw.choice((b"\x00", b"\x05", b"\x30", b"\x41"))
    return _base58_check(version + draw.randbytes(20))


def _base58_check(payload: bytes) -> str:
    whole = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(whole), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" * (len(whole) - len(whole.lstrip(b"\0"))) + text


def _bech32(prefix: str, data: list[int]) -> str:
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = _bech32_polymod(expanded + data + [0] * 6) ^ 1
    data = data + [(check >> 5 * (5 - i)) & 31 for i in range(6)]
    return prefix + "1" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[d] for d in data)


def _bech32_polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if (top >> bit) & 1 else 0
    return check


# ---- people ------------------------------------------------------------------------------------

GIVEN = [
    "ada", "grace", "alan", "linus", "mary", "josé", "anna", "wei", "yuki", "olga", "ibrahim",
    "chloe", "sven", "priya", "tom",
]  # fmt: skip
FAMILY = [
    "lovelace", "hopper", "turing", "smith", "müller", "garcia", "chen", "tanaka", "petrova",
    "khan", "larsen", "okafor",
]  # fmt: skip
DOMAINS = [
    "example.com", "example.org", "mail.example.net", "example.co.uk", "corp.example.io",
    "acme-corp.com", "uni-bonn.de", "gmail.com", "outlook.com", "proton.me", "qq.com",
    "example.museum", "sub.a-b.example.fr",
]  # fmt: skip


def mail(draw: Random) -> str:
    """A mail address."""
    given, family = draw.choice(GIVEN), draw.choice(FAMILY)
    local = draw.choice(
        (
            f"{given}.{family}",
            given,
            f"{given[0]}{family}",
            f"{given}_{family}{draw.randint(1, 99)}",
            f"{given}+news",
            f"{family}-{given}",
            f"{draw.randint(100000, 99999999)}",
        )
    )
    if draw.random() < 0.9:
        local = local.replace("é", "e").replace("ü", "ue")
    address = f"{local}@{draw.choice(DOMAINS)}"
    return address.upper() if draw.random() < 0.05 else address


def ssn(draw: Random) -> str:
    """A US social security number as it may be issued."""
    area = draw.choice([n for n in range(1, 900) if n != 666])
    digits = f"{area:03}{draw.randint(1, 99):02}{draw.randint(1, 9999):04}"
    return grouped(digits, (3, 2, 4), "-")


def ssn_without_dashes(draw: Random) -> str:
    """The same with spaces or as one number: what is said about it must tell what it is."""
    return ssn(draw).replace("-", draw.choice(("", " ")))


MONTHS = "January February March April May June July August September October November December"


def birth_date(draw: Random) -> str:
    """A day somebody may be born on, as written here and there."""
    year, month, day = draw.randint(1935, 2008), draw.randint(1, 12), draw.randint(1, 28)
    name = MONTHS.split()[month - 1]
    return draw.choice(
        (
            f"{year}-{month:02}-{day:02}",
            f"{month:02}/{day:02}/{year}",
            f"{day:02}.{month:02}.{year}",
            f"{name} {day}, {year}",
            f"{day} {name} {year}",
            f"{day:02}/{month:02}/{year}",
        )
    )


PHONE_REGIONS = [
    "US", "US", "US", "CA", "GB", "GB", "DE", "DE", "FR", "FR", "ES", "IT", "NL", "BE", "CH",
    "AT", "SE", "NO", "DK", "FI", "PL", "PT", "IE", "CZ", "GR", "RO", "TR", "IL", "IN", "CN",
    "JP", "KR", "AU", "NZ", "BR", "MX", "AR", "ZA", "NG", "EG", "SA", "AE", "SG", "PH", "ID",
    "VN", "UA",
]  # fmt: skip


@cache
def _example(region: str, mobile: bool) -> str:
    kinds = phonenumbers.PhoneNumberType
    wanted = kinds.MOBILE if mobile else kinds.FIXED_LINE
    number = phonenumbers.example_number_for_type(region, wanted)
    return phonenumbers.national_significant_number(number)


def _number(draw: Random, regions: list[str]) -> phonenumbers.PhoneNumber:
    while True:
        region = draw.choice(regions)
        example = _example(region, draw.random() < 0.5)
        digits = example[:-5] + some(draw, string.digits, 5)
        number = phonenumbers.PhoneNumber(
            country_code=phonenumbers.country_code_for_region(region), national_number=int(digits)
        )
        if phonenumbers.is_valid_number(number):
            return number


def phone(draw: Random) -> str:
    """A phone number with its country's code; or a North American one without."""
    formats = phonenumbers.PhoneNumberFormat
    if draw.random() < 0.3:
        return _north_american(draw)
    number = _number(draw, PHONE_REGIONS)
    written = phonenumbers.format_number(number, formats.INTERNATIONAL)
    how = draw.randrange(6)
    if how == 0:
        return phonenumbers.format_number(number, formats.E164)
    if how == 1:
        return "00" + written.removeprefix("+")
    if how == 2:
        return written.replace(" ", draw.choice("-."))
    return f"{written} x{draw.randint(10, 9999)}" if how == 3 and draw.random() < 0.3 else written


def _north_american(draw: Random) -> str:
    number = phonenumbers.national_significant_number(_number(draw, ["US", "CA"]))
    area, exchange, line = number[:3], number[3:6], number[6:]
    return draw.choice(
        (
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"1-{area}-{exchange}-{line}",
            f"+1 {area} {exchange} {line}",
            f"{area} {exchange} {line}",
        )
    )


def national_phone(draw: Random) -> str:
    """A phone number without its country's code, as one writes it at home."""
    number = _number(draw, [r for r in PHONE_REGIONS if r not in ("US", "CA")])
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)


# ---- national ids ------------------------------------------------------------------------------

NATIONAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "de.idnr": (("###########", "## ### ### ###"), ("Steuer-ID", "tax id", "IdNr")),
    "fr.nir": (("{1|2}##0{1|4|9}75######{01|15|33|51|70|97}", "{1|2} ## 0{2|7} 75 ### ### ##"),
               ("NIR", "numéro de sécurité sociale", "social security number")),
    "es.dni": (("########@", "########-@"), ("DNI", "NIF", "documento nacional")),
    "es.nie": (("{X|Y|Z}#######@", "{X|Y|Z}-#######-@"), ("NIE", "número de extranjero")),
    "it.codicefiscale": (("@@@@@@##{A|B|C|D|E|H|L|M|P|R|S|T}{01|12|25|48|61}H501@",),
                         ("codice fiscale", "CF", "fiscal code")),
    "nl.bsn": (("#########", "####.##.###"), ("BSN", "burgerservicenummer")),
    "be.nn": (("{yymmdd}#####", "85.07.##-###.##"),
              ("rijksregisternummer", "NISS", "national number")),
    "pl.pesel": (("{yymmdd}#####",), ("PESEL", "numer PESEL")),
    "se.personnummer": (("{yymmdd}-####", "{yyyymmdd}-####"), ("personnummer", "personal number")),
    "fi.hetu": (("{ddmmyy}-###{A|B|C|D|E|F|H|J|K|L|M|N|P|R|S|T|U|V|W|X|Y|#}",),
                ("henkilötunnus", "HETU", "personal identity code")),
    "no.fodselsnummer": (("{ddmmyy}#####", "{ddmmyy} #####"), ("fødselsnummer", "national id")),
    "dk.cpr": (("{ddmmyy}-####",), ("CPR", "personnummer", "CPR number")),
    "ch.ssn": (("756.####.####.##", "756##########"), ("AHV", "AVS number", "AHV-Nummer")),
    "br.cpf": (("###.###.###-##", "###########"), ("CPF", "CPF number")),
    "ca.sin": (("###-###-###", "### ### ###"), ("SIN", "social insurance number")),
    "au.tfn": (("### ### ###", "#########"), ("TFN", "tax file number")),
    "in_.aadhaar": (("#### #### ####", "############"), ("Aadhaar", "aadhaar number", "UIDAI")),
    "in_.pan": (("@@@{P|C|H}@####@",), ("PAN card", "permanent account number")),
    "za.idnr": (("{yymmdd}####08#",), ("ID number", "South African ID", "SA ID")),
    "mx.curp": (("{G|M|L|R}{A|E|O}@@{yymmdd}{H|M}{DF|JC|NL}{B|C|D}{R|S|T}{L|M|N}0#",), ("CURP",)),
    "cn.ric": (("{110101|310104|440305}{yyyymmdd}###{#|X}",), ("身份证", "resident ID", "ID card")),
    "kr.rrn": (("{yymmdd}-{1|2}######",), ("RRN", "resident registration number", "주민등록번호")),
    "tr.tckimlik": (("###########",), ("TC kimlik", "T.C. Kimlik No")),
    "gb.nhs": (("### ### ####", "##########"), ("NHS number", "NHS no")),
    "gb.nino": (("{AB|CE|JK|PW}######{A|B|C|D}", "{AB|CE|JK|PW} ## ## ## {A|B|C|D}"),
                ("NINO", "National Insurance number", "NI number")),
    "ro.cnp": (("{1|2}{yymmdd}{12|23|40}####",), ("CNP", "cod numeric personal")),
    "ie.pps": (("#######@", "#######@A"), ("PPS number", "PPSN")),
}  # fmt: skip


def national_id(draw: Random) -> tuple[str, str]:
    """What it is called, and one whose check digits are right."""
    name = draw.choice(sorted(NATIONAL))
    forms, called = NATIONAL[name]
    form, valid = draw.choice(forms), _national_check(name)
    for _ in range(100_000):
        written = filled(form, draw)
        if valid(written):
            return draw.choice(called), written
    raise AssertionError(f"no valid {name} is made by {form}")


def _national_check(name: str) -> Callable[[str], bool]:
    if name == "gb.nino":
        return lambda _: True
    module = importlib.import_module(f"stdnum.{name}")
    valid: Callable[[str], bool] = module.is_valid
    return valid


# ---- machines ----------------------------------------------------------------------------------


def ip(draw: Random) -> str:
    """An address, of either version."""
    if draw.random() < 0.6:
        first = draw.choice([n for n in range(1, 224) if n != 127])
        return f"{first}." + ".".join(str(draw.randint(0, 255)) for _ in range(3))
    words = [draw.choice((0, 0, draw.getrandbits(16))) for _ in range(5)]
    words = [draw.choice((0x2001, 0x2A02, 0xFE80, 0xFD00)), *words, *(draw.getrandbits(16),) * 2]
    address = ipaddress.IPv6Address(b"".join(word.to_bytes(2) for word in words))
    return address.exploded if draw.random() < 0.2 else str(address)


def mac(draw: Random) -> str:
    """A hardware address in one of its three spellings."""
    digits = some(draw, HEX, 12)
    digits = digits.upper() if draw.random() < 0.5 else digits
    pairs, words = grouped(digits, (2,), ":"), grouped(digits, (4,), ".").lower()
    return draw.choice((pairs, pairs.replace(":", "-"), words))


# ---- credentials -------------------------------------------------------------------------------

KEYS: tuple[tuple[str, str, int], ...] = (
    ("AK" "IA", BASE32, 16), ("gh" "p_", ALNUM, 36), ("gh" "s_", ALNUM, 36),
    ("gl" "pat-", URLSAFE, 20), ("sk-" "ant-api03-", URLSAFE, 95), ("sk-" "proj-", ALNUM, 48),
    ("AI" "za", URLSAFE, 35), ("h" "f_", string.ascii_letters, 34), ("sk_" "live_", ALNUM, 24),
    ("rk_" "live_", ALNUM, 99), ("wh" "sec_", ALNUM, 32), ("np" "m_", ALNUM, 36),
    ("py" "pi-AgEIcHlwaS5vcmc", URLSAFE, 120), ("do" "p_v1_", HEX, 64), ("shp" "at_", HEX, 32),
    ("dckr_" "pat_", URLSAFE, 27), ("lin_" "api_", ALNUM, 40), ("ruby" "gems_", HEX, 48),
    ("AGE-SECRET-" "KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58), ("hv" "s.", URLSAFE, 95),
    ("pscale_" "tkn_", URLSAFE, 43), ("da" "pi", HEX, 32), ("NR" "AK-", UPPER + string.digits, 27),
    ("dp." "pt.", ALNUM, 43), ("SG" ".", URLSAFE, 66), ("xo" "xb-", string.digits, 24),
    ("glsa" "_", ALNUM, 32), ("tfp" "_", ALNUM, 59), ("sntr" "yu_", HEX, 64),
    ("EAAA" "Eo", URLSAFE, 59), ("pplx" "-", ALNUM, 48), ("key" "-", HEX, 32),
)  # fmt: skip
"""Prefix, alphabet and length of vendors' keys, as these publish them."""

WORDS = [
    "correct", "horse", "battery", "staple", "summer", "winter", "dragon", "monkey", "admin",
    "secret", "falcon", "river",
]  # fmt: skip


def vendor_key(draw: Random) -> str:
    """A key that tells its issuer by its form."""
    prefix, alphabet, length = draw.choice(KEYS)
    if prefix == "SG.":
        return f"{prefix}{some(draw, URLSAFE, 22)}.{some(draw, URLSAFE, 43)}"
    if prefix == "xoxb-":
        numbers = (some(draw, string.digits, 12) for _ in range(2))
        return f"{prefix}{'-'.join(numbers)}-{some(draw, ALNUM, 24)}"
    if prefix == "glsa_":
        return f"{prefix}{some(draw, ALNUM, length)}_{some(draw, HEX, 8)}"
    return prefix + some(draw, alphabet, length)


def jwt(draw: Random) -> str:
    """A signed web token."""
    head = b'{"alg":"HS256","typ":"JWT"}'
    body = b'{"sub":"%d","name":"x","iat":1516239022}' % draw.randint(10**9, 10**10)
    parts = [urlsafe_b64encode(part).decode().rstrip("=") for part in (head, body)]
    return ".".join((*parts, some(draw, URLSAFE, 43)))


def generic_key(draw: Random) -> str:
    """A key that only its name tells."""
    return draw.choice(
        (
            some(draw, HEX, 32),
            some(draw, HEX, 64),
            some(draw, ALNUM, 40),
            some(draw, URLSAFE, 43),
            b64encode(draw.randbytes(32)).decode(),
            some(draw, ALNUM, 24),
        )
    )


def password(draw: Random) -> str:
    """A password, weak or strong, without spaces, quotes, or what ends a URL's password."""
    word, other = draw.choice(WORDS), draw.choice(WORDS)
    return draw.choice(
        (
            f"{word}{draw.randint(1, 9999)}",
            f"{word.title()}!{draw.randint(1, 99)}",
            some(draw, ALNUM + "!$%^_+-", draw.randint(10, 24)),
            f"{word}-{other}-{draw.randint(1, 9)}",
            f"P{draw.randint(0, 9)}ss{word}_{some(draw, ALNUM, 4)}",
        )
    )


def private_key(draw: Random) -> str:
    """A PEM file with a private key in it."""
    kind = draw.choice(("RSA ", "EC ", "", "OPENSSH "))
    lines = [some(draw, BASE64, 64) for _ in range(draw.randint(2, 12))]
    lines.append(some(draw, BASE64, 30) + "==")
    name = f"{kind}PRIVATE KEY"
    return "\n".join((f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"))
