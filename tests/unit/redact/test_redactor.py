"""What a user of the redactor depends on: nothing planted survives, the rest stays, it ends."""

from __future__ import annotations

import json
import string
from collections.abc import Callable

import phonenumbers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stdnum import iban as stdnum_iban
from stdnum import luhn

from gatebook.processors.redact import (
    SECRET_KINDS,
    RedactionFailed,
    RedactionLimits,
    Redactor,
    Rule,
    default_rules,
)

KEY = b"a pseudonym key for tests only"
REDACTOR = Redactor.default(KEY)
ALNUM = string.ascii_letters + string.digits
RELAXED = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    made = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(*made).map("".join)


def characters(alphabet: str, low: int, high: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=low, max_size=high or low)


def drawn(alphabet: str, low: int, high: int | None = None) -> st.SearchStrategy[str]:
    """Characters as a token has them: an example such as `ghp_0000...` is none."""
    text = characters(alphabet, low, high)
    return text.filter(lambda value: max(map(value.count, value)) <= len(value) / 4)


def with_check_digit(body: str) -> str:
    return body + luhn.calc_check_digit(body)


def grouped(sizes: tuple[int, ...], separator: str, digits: str) -> str:
    parts, position = [], 0
    for size in sizes:
        parts.append(digits[position : position + size])
        position += size
    return separator.join(parts)


cards = st.builds(
    grouped,
    st.sampled_from([(16,), (4, 4, 4, 4), (8, 8)]),
    st.sampled_from([" ", "-", ".", "  "]),
    joined(st.sampled_from(["4", "51", "6011"]), characters(string.digits, 15)).map(
        lambda body: with_check_digit(body[:15])
    ),
)
emails = joined(
    characters(ALNUM, 1, 12), st.sampled_from(["", ".x", "+tag", "_1"]), "@",
    characters(string.ascii_lowercase, 2, 10), st.sampled_from([".com", ".co.uk", ".org"]),
)  # fmt: skip
ibans = characters(string.digits, 18).map(
    lambda bban: "DE" + stdnum_iban.calc_check_digits("DE00" + bban) + bban
)


def example_phone(region: str, separator: str) -> str:
    number = phonenumbers.example_number(region)
    assert number is not None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    return written.replace(" ", separator)


phones = st.builds(
    example_phone, st.sampled_from(["US", "DE", "FR", "GB", "JP"]), st.sampled_from(" -.")
)
addresses = st.ip_addresses(v=4).filter(lambda a: not (a.is_loopback or a.is_unspecified))
addresses_v6 = st.ip_addresses(v=6).filter(
    lambda a: not (a.is_loopback or a.is_unspecified) and any(c.isdigit() for c in str(a))
)
keys = st.one_of(
    joined("AKIA", drawn(string.ascii_uppercase + "234567", 16)),
    joined("ghp_", drawn(ALNUM, 36)),
    joined("glpat-", drawn(ALNUM, 20)),
    joined("xoxb-", drawn(string.digits, 12), "-", drawn(ALNUM, 24)),
    joined("AIza", drawn(ALNUM + "_-", 35)),
    joined("sk_live_", drawn(ALNUM, 24)),
    joined("hf_", drawn(ALNUM, 34)),
    joined("sk-ant-api03-", drawn(ALNUM + "_-", 80)),
    joined("eyJ", drawn(ALNUM, 20), ".eyJ", drawn(ALNUM, 30), ".", drawn(ALNUM, 43)),
    drawn(ALNUM + "+/", 64).map(
        lambda body: f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    ),
)

# Numbers and addresses need an edge to be told from longer ones; keys and mail do not.
glued = st.one_of(emails, keys)
edged = st.one_of(cards, ibans, phones, addresses.map(str), addresses_v6.map(str))
around = st.text(max_size=30)
edges = st.sampled_from(list(" \n\t()\"',;<>=é。「"))


def survives(value: str, text: str) -> bool:
    return value in text or value.lower() in text.lower()


@RELAXED
@given(around, glued, around)
def test_keys_and_mail_go_in_any_context(before: str, value: str, after: str) -> None:
    """Glued to any text on both sides, the value does not come out."""
    assert not survives(value, REDACTOR.redact_text(before + value + after).text)


@RELAXED
@given(around, edges, edged, edges, around)
def test_numbers_and_addresses_go_in_any_context(
    before: str, left: str, value: str, right: str, after: str
) -> None:
    """With any character that is no letter or digit beside it, the value does not come out."""
    text = before + left + value + right + after
    assert not survives(value, REDACTOR.redact_text(text).text)


def fullwidth(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "json": lambda text: json.dumps(text),
    "json in json": lambda text: json.dumps(json.dumps({"arguments": text})),
    "json escapes throughout": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "percent": lambda text: "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in text),
    "full width": fullwidth,
    "zero width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: "\u00ad".join(text),
}


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(st.one_of(glued, edged))
def test_an_encoded_value_goes_too(name: str, value: str) -> None:
    """Escapes, look-alike and invisible characters hide nothing, in the forms above."""
    encoded = ENCODINGS[name]("\n" + value + "\n")
    redacted = REDACTOR.redact_text("x " + encoded + " y").text
    core = ENCODINGS[name](value).strip('"')
    assert core not in redacted
    assert redacted != "x " + encoded + " y"


@settings(max_examples=60, deadline=None)
@given(st.one_of(glued, edged))
def test_json_stays_json(value: str) -> None:
    """Masking inside a JSON text leaves JSON, and what was in it is masked once decoded."""
    document = json.dumps({"to": f"\n{value}\n", "n": [1, f"\t{value}"]})
    decoded = json.loads(REDACTOR.redact_text(document).text)
    assert not survives(value, json.dumps(decoded))
    assert list(decoded) == ["to", "n"]


words = st.lists(
    st.text(
        "abcdefghijklmnopqrstuvwxyzäöüßéèñçž\u0430\u0431\u0432你好世界 ,.!?'\"()-\n", max_size=12
    ),
    max_size=20,
).map(" ".join)


@RELAXED
@given(words, st.lists(st.integers(0, 999_999), max_size=5))
def test_text_without_values_is_unchanged(text: str, numbers: list[int]) -> None:
    """Words of several scripts, punctuation and small numbers come out as they went in."""
    written = text + " " + " , ".join(map(str, numbers))
    assert REDACTOR.redact_text(written).text == written
    assert REDACTOR.redact_text(written).counts == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\\\",
        "Write a haiku about the sea, please. It has 5-7-5 syllables.",
        "def add(a: int, b: int) -> int:\n    return a + b  # std::cout << x;",
        "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12 at 2026-10-11T12:30:45.123+02:00",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736, id 018f3c5e-7c1a-7b3e-9d2f-4a5b6c7d8e9f",
        "1.5 + 2.25 = 3.75; pi = 3.14159265358979; 10,000,000 rows in 12.5 s",
        "@app.route('/users') and ratio 16:9, version 2.31.0",
        "The max_tokens parameter is 4096 and the key takeaway: practice.",
    ],
)
def test_ordinary_prompts_are_unchanged(text: str) -> None:
    """Code, dates, hashes, identifiers and figures are no personal data."""
    assert REDACTOR.redact_text(text).text == text


def test_a_mail_address_behind_a_key_that_is_one_itself_is_masked() -> None:
    """What begins within a masked value ends with it; the address that is left over goes, too."""
    key = "ey" + "aB3" * 7 + ".ey" + "cD4" * 7 + "." + "eF5" * 10
    for behind in (".0", ".é.0", "-é.0", "." + "a" * 30 + "." + "b" * 36 + ".0", "!" + "c" * 400):
        once = REDACTOR.redact_text(f"0@{key}{behind}@0.0A").text
        assert f"{behind}@" not in once
        assert REDACTOR.redact_text(once).text == once


@RELAXED
@given(st.lists(st.one_of(around, glued, edged, st.just("password="), st.just("]: ")), max_size=8))
def test_redacting_twice_changes_nothing(parts: list[str]) -> None:
    """A redacted text is a fixed point, whatever stood side by side in it."""
    once = REDACTOR.redact_text("".join(parts)).text
    again = REDACTOR.redact_text(once)
    assert again.text == once
    assert again.counts == {}


def test_a_mask_keeps_shape_and_reads_the_same_for_the_same_value() -> None:
    """Mail domain and last four digits stay; spelling differences do not change the pseudonym."""
    text = "Ada@Example.com ada@example.com 4111 1111 1111 1111 4111111111111111"
    first, second, third, fourth = REDACTOR.redact_text(text).text.split(" ")
    assert first == second
    assert third == fourth
    assert first.startswith("[EMAIL_e1_")
    assert first.endswith(":@example.com]")
    assert third.endswith(":*1111]")
    assert REDACTOR.redact_text(text).counts == {"email": 2, "card": 2}


def test_pseudonyms_differ_by_key_epoch_and_tenant() -> None:
    """Nobody can join people across tenants or epochs, or guess them without the key."""
    text = "ada@example.com"
    other_key = Redactor.default(b"another pseudonym key for tests")
    texts = {
        REDACTOR.redact_text(text).text,
        REDACTOR.redact_text(text, tenant="a").text,
        REDACTOR.redact_text(text, tenant="b").text,
        Redactor.default(KEY, "e2").redact_text(text).text,
        other_key.redact_text(text).text,
    }
    assert len(texts) == 5


def test_a_weak_key_or_an_odd_epoch_is_refused() -> None:
    """A pseudonym under a short key could be guessed back."""
    with pytest.raises(ValueError, match="16 bytes"):
        Redactor.default(b"short")
    with pytest.raises(ValueError, match="epoch"):
        Redactor.default(KEY, "E 1]")
    assert "a pseudonym key" not in repr(REDACTOR.pseudonyms)


def test_overlapping_findings_leave_no_remainder() -> None:
    """The longest finding names the mask, and the mask covers all that overlapped."""
    redacted = REDACTOR.redact_text("password=ada@example.com!tail and more")
    assert redacted.text.startswith("password=[PASSWORD_e1_")
    assert redacted.text.endswith("] and more")
    assert "example" not in redacted.text


def test_a_secret_in_a_mail_domain_is_not_kept() -> None:
    """The part of a value that a mask keeps is read as well."""
    secret = "AK" + "IAIOSFODNN7EXAMPLE"
    redacted = REDACTOR.redact_text(f"x@{secret}.com x@4111111111111111.com")
    assert secret.lower() not in redacted.text.lower()
    assert "4111111111111111" not in redacted.text


def test_a_forged_mask_hides_little() -> None:
    """Text glued to a mask is masked, and a card in a forged domain is found."""
    short = "A" * 16
    forged = f"[EMAIL_e1_{short}:@4111111111111111.com] password=[CARD_e1_{short}]x9"
    redacted = REDACTOR.redact_text(forged).text
    assert "4111111111111111" not in redacted
    assert "x9" not in redacted


class TestJson:
    """`redact_json` walks everything that can carry text."""

    def test_keys_values_and_numbers_are_redacted(self) -> None:
        """A value hides in keys and numbers as well as in strings."""
        value = {"ada@example.com": ["ada@example.com", 4111111111111111, True, None, 1.5, 7]}
        redacted, counts = REDACTOR.redact_json(value)
        written = json.dumps(redacted)
        assert "ada@" not in written
        assert "411111111111" not in written
        assert "[true, null, 1.5, 7]"[1:] in written.replace("7]}", "7]")
        assert counts == {"email": 2, "card": 1}

    def test_values_under_a_credential_key_are_masked_whole(self) -> None:
        """However plain it looks, what stands under `password` or `api_key` is a secret."""
        value = {"password": "sunshine", "X-Api-Key": "plain", "max_tokens": "12", "secret": ""}
        redacted, counts = REDACTOR.redact_json(value)
        assert isinstance(redacted, dict)
        assert redacted["password"].startswith("[PASSWORD_e1_")
        assert redacted["X-Api-Key"].startswith("[API_KEY_e1_")
        assert (redacted["max_tokens"], redacted["secret"]) == ("12", "")
        assert counts == {"password": 1, "api_key": 1}
        assert REDACTOR.redact_json(redacted) == (redacted, {})

    def test_keys_that_read_the_same_once_masked_are_both_kept(self) -> None:
        """No entry is lost when two keys get one mask."""
        redacted, _ = REDACTOR.redact_json({"A@example.com": 1, "a@example.com": 2})
        assert isinstance(redacted, dict)
        assert sorted(redacted.values()) == [1, 2]

    def test_the_input_is_not_changed(self) -> None:
        """Frozen in, new out."""
        value = {"a": ["ada@example.com"]}
        REDACTOR.redact_json(value)
        assert value == {"a": ["ada@example.com"]}

    @pytest.mark.parametrize("bad", [b"bytes", object(), {1: "a"}, {"a": {1, 2}}, 1j])
    def test_an_unknown_type_fails(self, bad: object) -> None:
        """What cannot be read cannot be called clean."""
        with pytest.raises(RedactionFailed) as caught:
            REDACTOR.redact_json([bad], "content.tools")
        assert (caught.value.reason, caught.value.where) == ("unknown_type", "content.tools")

    def test_nesting_count_and_size_are_bounded(self) -> None:
        """A hostile value costs no more than the limits allow."""
        deep: object = "x"
        for _ in range(10_000):
            deep = [deep]
        for bad, reason in (
            (deep, "too_deep"),
            ([1] * 20_001, "too_many_nodes"),
            (["y" * 200_000] * 6, "oversize"),
        ):
            with pytest.raises(RedactionFailed) as caught:
                REDACTOR.redact_json(bad)  # type: ignore[arg-type]  # an object on purpose
            assert caught.value.reason == reason

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), around, glued, edged),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(around, inner)),
            max_leaves=12,
        )
    )
    def test_any_json_is_redacted_to_a_fixed_point(self, value: object) -> None:
        """Every JSON value within the limits is taken, and a second time changes nothing."""
        once, _ = REDACTOR.redact_json(value)  # type: ignore[arg-type]  # JSON by construction
        again, counts = REDACTOR.redact_json(once)
        assert repr(again) == repr(once)  # repr: NaN equals itself there
        assert counts == {}


def test_an_oversize_text_fails_and_the_failure_does_not_show_it() -> None:
    """Fail closed: the caller gets a reason and a label, and no text, cause or context."""
    with pytest.raises(RedactionFailed) as caught:
        REDACTOR.redact_text("ada@example.com " * 80_000, where="input_messages")
    assert caught.value.reason == "oversize"
    assert "ada" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_size_counts_bytes_not_characters() -> None:
    """A text of four-byte characters is as large as it is on the wire."""
    redactor = Redactor(default_rules(), KEY, "e1", RedactionLimits(text_bytes=100))
    assert redactor.redact_text("é" * 50).text == "é" * 50
    with pytest.raises(RedactionFailed):
        redactor.redact_text("é" * 51)


def test_a_text_that_is_none_fails() -> None:
    """A wrong type is a failure of redaction, not of the program."""
    with pytest.raises(RedactionFailed) as caught:
        REDACTOR.redact_text(None)  # type: ignore[arg-type]  # on purpose
    assert caught.value.reason == "unknown_type"


def test_a_rule_that_cuts_a_character_masks_all_of_it() -> None:
    """Rules read bytes; what goes out is text all the same."""
    rule = Rule(id="x", kind="x", description="", pattern=".b.", validator="any")
    redacted = Redactor([rule], KEY, "e1").redact_text("1\u4f60b\u597d2").text
    assert redacted.startswith("1[X_e1_")
    assert redacted.endswith("]2")


def test_lone_surrogates_and_nul_pass_through() -> None:
    """Text that is no valid Unicode is redacted like any other."""
    text = "\ud800 ada@example.com \x00\udfff"
    redacted = REDACTOR.redact_text(text).text
    assert redacted.startswith("\ud800 [EMAIL_")
    assert redacted.endswith("] \x00\udfff")


HOSTILE = {
    "phones": "+1 1 1 1 1 1 1 1 1 1 1 ",
    "cards": "4111 1111 1111 1111 ",
    "ibans": "DE89 3704 0044 0532 0130 01 ",
    "private keys": "-----BEGIN PRIVATE KEY-----",
    "secrets": "secret aws ",
    "colons": "1:2:3::4:zz ",
    "escapes": "\\u0041",
    "short codes": "otp pin: cvv ",
    "names of lists": '{"passwords":[',
    "quotes below names": '"passwords":["\n',
    "values below names": '{"api_keys":[1,{"',
}


def table_of_values(rows: int) -> tuple[str, list[str]]:
    """A table as people paste it, three values in every row, and the values."""
    lines, values = ["id,name,mail,phone,card"], []
    for row in range(rows):
        card = with_check_digit(f"4{row * 7919 % 10**14:014d}")
        mail, phone = f"ada.{row}@example.com", f"+49 151 {row * 3571 % 10**8:08d}"
        values += [mail, phone, card]
        lines.append(f"{row},Ada Lovelace,{mail},{phone},{card}")
    return "\n".join(lines), values


def test_a_table_of_64_kilobytes_with_values_in_every_row_is_masked_wholly() -> None:
    """A customer list pasted into a prompt loses all its values, and is not refused."""
    text, values = table_of_values(950)
    assert len(text) > 64_000
    redacted = REDACTOR.redact_text(text)
    assert [value for value in values if value in redacted.text] == []
    assert sum(redacted.counts.values()) == len(values)


def test_found_values_earn_work_up_to_a_bound() -> None:
    """Values pay for a table, but not for one of any size: the work on a text has an end."""
    text, values = table_of_values(950)
    poor = RedactionLimits(earned_units=0)
    with pytest.raises(RedactionFailed) as caught:
        Redactor(default_rules(), KEY, "e1", poor).redact_text(text)
    assert caught.value.reason == "too_much_work"
    with pytest.raises(RedactionFailed) as caught:
        REDACTOR.redact_text(table_of_values(9_500)[0])
    assert caught.value.reason == "too_much_work"
    assert all(value not in str(caught.value) for value in values[:3])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_runs_into_the_work_limit(name: str) -> None:
    """Text made to be slow is refused, or done, within the units allowed: never without bound."""
    unit = HOSTILE[name]
    small = Redactor(default_rules(), KEY, "e1", RedactionLimits(work_units=2_000))
    with pytest.raises(RedactionFailed) as caught:
        small.redact_text(unit * (200_000 // len(unit)))
    assert caught.value.reason == "too_much_work"


@pytest.mark.parametrize("unit", ["1 ", "7", "@", "a@", ":", "1:2::", "x", "[", "\n", "10.1."])
def test_a_megabyte_of_what_values_are_made_of_is_read_to_its_end(unit: str) -> None:
    """Reading is linear: such a text needs no refusal, and nothing in it is a value."""
    text = unit * (1_000_000 // len(unit))
    assert REDACTOR.redact_text(text).text == text


def test_kinds_of_secrets_are_kinds_of_rules() -> None:
    """Detectors ask for these kinds; each is one that a rule can count."""
    assert {rule.kind for rule in default_rules()} >= SECRET_KINDS


def test_a_check_that_breaks_masks() -> None:
    """python-stdnum raises a KeyError for this number: no reason to refuse, nor to keep it."""
    assert "130653311403063528" not in REDACTOR.redact_text("no 130653311403063528 x").text


@pytest.mark.parametrize(
    "text",
    [
        "api_key = abc123-def456-ghi789-jklmno01",
        "secret: this-is-an-example-value-4u",
        "X-AuthSource: mail01.int.example.org",
        "private_key: server2.deploy7.pem",
        "&hf_cellpriorityparametersdescription_h_prio)",
    ],
)
def test_what_stands_for_a_secret_stays(text: str) -> None:
    """Counted up, called an example, a host or a file: nothing is hidden there."""
    assert REDACTOR.redact_text(text).text == text


@pytest.mark.parametrize(
    "text",
    ["card 4111 1111 1111 1111\uff0c谢谢", "call 4111111111111111。", "4111111111111111 1234"],
)
def test_a_card_keeps_its_last_digits_whatever_weaker_rules_see_in_it(text: str) -> None:
    """A telephone number or a long random string within a card would only blur its mask."""
    assert ":*1111]" in REDACTOR.redact_text(text).text


VALUES_SIDE_BY_SIDE = (
    "4111 1111 1111 1111",
    "5555555555554444",
    "DE89370400440532013000",
    "+49 151 12345678",
    "203.0.113.77",
    "2001:db8::7:1",
    "ada@example.com",
    "00:1b:44:11:3a:b7",
    "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
)


@pytest.mark.parametrize("joint", [" ", ", ", "/", " - ", "\n"])
@pytest.mark.parametrize("first", VALUES_SIDE_BY_SIDE)
@pytest.mark.parametrize("second", VALUES_SIDE_BY_SIDE)
def test_what_one_rule_has_found_hides_nothing_beside_it(
    first: str, second: str, joint: str
) -> None:
    """A rule passes over what a stronger one has found, and over that only."""
    redacted = REDACTOR.redact_text(f"phone {first}{joint}{second}").text
    assert not survives(first, redacted)
    assert not survives(second, redacted)


def test_a_mask_in_a_password_hides_nothing_behind_it() -> None:
    """What stands behind the mask belongs to the password still, and goes at once."""
    key = f"-----BEGIN {'PRIVATE'} KEY-----\n{'0123456789abcdef' * 4}\n-----END PRIVATE KEY-----"
    once = REDACTOR.redact_text(f"password={key}/0").text
    assert "/0" not in once
    assert REDACTOR.redact_text(once).text == once
