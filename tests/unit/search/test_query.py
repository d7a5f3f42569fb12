"""The query language: what parses, to what, and how errors point at their cause."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatebook.processors.search.query import (
    KEYWORDS,
    MAX_DEPTH,
    And,
    Comparison,
    Everything,
    Node,
    Not,
    Or,
    QueryError,
    Value,
    Words,
    both,
    comparisons,
    parse,
    to_text,
)


def eq(name: str, *pieces: str, quoted: bool = False, operator: str = ":") -> Comparison:
    return Comparison(name, operator, Value(pieces, quoted))


def words(*texts: str) -> Words:
    return Words(tuple(Value((text,)) for text in texts))


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("", Everything()),
        ("   ", Everything()),
        ("user.id:alice", eq("user.id", "alice")),
        ("user.id : alice", eq("user.id", "alice")),
        ('user.name:"Alice  B"', eq("user.name", "Alice  B", quoted=True)),
        ('a:"x*y"', eq("a", "x*y", quoted=True)),
        ('a:"say \\"hi\\" \\\\"', eq("a", 'say "hi" \\', quoted=True)),
        ("a:ab*", eq("a", "ab", "")),
        ("a:*b*c**d", eq("a", "", "b", "c", "d")),
        ("a:\\*", eq("a", "*")),
        ("a:*", eq("a", "", "")),
        ("a:**", eq("a", "", "")),
        ("n >= 10", eq("n", "10", operator=">=")),
        ("n<-1.5", eq("n", "-1.5", operator="<")),
        ("t > 2026-11-23T10:15:00Z", eq("t", "2026-11-23T10:15:00Z", operator=">")),
        ("source.ip:2001:db8::1", eq("source.ip", "2001:db8::1")),
        ("a:1 and b:2 or c:3", Or((And((eq("a", "1"), eq("b", "2"))), eq("c", "3")))),
        ("a:1 AND (b:2 Or c:3)", And((eq("a", "1"), Or((eq("b", "2"), eq("c", "3")))))),
        ("(a:1 and (b:2 and c:3))", And((eq("a", "1"), eq("b", "2"), eq("c", "3")))),
        ("not a:1 and b:2", And((Not(eq("a", "1")), eq("b", "2")))),
        ("not not a:1", Not(Not(eq("a", "1")))),
        ("not(a:1)", Not(eq("a", "1"))),
        ("a:(1 or 2)", Or((eq("a", "1"), eq("a", "2")))),
        ("a:(1 and not 2)", And((eq("a", "1"), Not(eq("a", "2"))))),
        ('a:("x y")', eq("a", "x y", quoted=True)),
        ("password reset", words("password", "reset")),
        ("android", words("android")),
        ("note or nothing", Or((words("note"), words("nothing")))),
        ('"ignore all" now', Words((Value(("ignore all",), True), Value(("now",))))),
        ("and:1", eq("and", "1")),
        ("a:\\and", eq("a", "and")),
        ('a:"and"', eq("a", "and", quoted=True)),
        ("a\\:b", words("a:b")),
        ("reset and a:1", And((words("reset"), eq("a", "1")))),
    ],
)
def test_queries_mean_what_they_read_like(query: str, tree: Node) -> None:
    """Each form of the language, and that `and` binds closer than `or`."""
    assert parse(query) == tree


@pytest.mark.parametrize(
    ("query", "position", "part"),
    [
        ("a:", 2, "value is missing"),
        ("a: and b:1", 3, "value is missing"),
        (":x", 0, "field name is missing"),
        ("a:1 b:2", 4, "`and` or `or` is missing"),
        ("a:Alice Smith", 8, "`and` or `or` is missing"),
        ("word a:1", 6, "`and` or `or` is missing"),
        ("a:1 and", 7, "ends where a clause"),
        ("a:1 or or b:2", 7, "clause is missing before `or`"),
        ("and a:1", 0, "clause is missing before `and`"),
        ("not", 3, "ends where a clause"),
        ("(a:1", 0, "not closed"),
        ("(a:1 b", 5, ""),
        ("a:1)", 3, "closes nothing"),
        ("()", 1, "clause is missing"),
        ('a:"x', 2, "quote is not closed"),
        ('a:"x"y', 5, "space is missing"),
        ('a:x"y"', 3, "quote inside a word"),
        ("a:x\\", 3, "nothing follows"),
        ("a = 1", 2, "= is not an operator"),
        ("a*:1", 0, "field name"),
        ("a:(1 or )", 8, "value is missing"),
        ("a:x\ud800", 3, "not valid text"),
    ],
)
def test_errors_point_at_their_cause(query: str, position: int, part: str) -> None:
    """The caret stands under the character where the reading stopped."""
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert (caught.value.position, part in caught.value.message) == (position, True)
    shown, caret = str(caught.value).splitlines()[-2:]
    assert shown == "    " + query.replace("\ud800", "?")
    assert caret == " " * (4 + position) + "^"


def tree_or_error(query: str) -> Node | QueryError:
    try:
        return parse(query)
    except QueryError as error:
        return error


ALPHABET = 'ab:<>=()"*\\ \t\n\x00\u202eand or not é'


@given(st.one_of(st.text(ALPHABET, max_size=60), st.text(max_size=60)))
@example("(" * 5_000)
@example("not " * 3_000)
@example("a:(" * 2_000)
@example("a:1 or " * 1_100)
@example('"\ud800"')
def test_no_text_makes_the_parser_fail(query: str) -> None:
    """Any text is a query or a QueryError, whose position lies in the text; and what parses is
    printed to a query that parses the same."""
    found = tree_or_error(query)
    if isinstance(found, QueryError):
        assert 0 <= found.position <= len(query)
        assert not set(str(found)) & {"\x00", "\u202e", "\x1b", "\r"}
    else:
        assert parse(to_text(found)) == found


NAMES = st.text(min_size=1, max_size=8)
PIECE = st.text('ab*:\\"() andor=<é\t', max_size=6)
PLAIN = st.one_of(
    PIECE.filter(bool).map(lambda piece: Value((piece,))),
    st.tuples(PIECE, st.lists(PIECE.filter(bool), max_size=2), PIECE).map(
        lambda parts: Value((parts[0], *parts[1], parts[2]))
    ),
)
QUOTED = st.text(max_size=8).map(lambda text: Value((text,), True))
COMPARISON = st.builds(
    Comparison, NAMES, st.sampled_from([":", ">", ">=", "<", "<="]), st.one_of(PLAIN, QUOTED)
)
WORDS = st.lists(st.one_of(PLAIN, QUOTED), min_size=1, max_size=3).map(lambda w: Words(tuple(w)))
TREES: st.SearchStrategy[Node] = st.recursive(
    st.one_of(COMPARISON, WORDS),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: both(And, parts)),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: both(Or, parts)),
    ),
    max_leaves=12,
)


@given(TREES)
def test_a_printed_tree_parses_to_an_equal_one(tree: Node) -> None:
    """Whatever stands in names and values, printing escapes it and nothing is lost."""
    assert parse(to_text(tree)) == tree


def test_nesting_has_a_bound() -> None:
    """At the bound a query parses; one level deeper it is refused, not a stack overflow."""
    fits = "(" * MAX_DEPTH + "a:1" + ")" * MAX_DEPTH
    assert parse(fits) == eq("a", "1")
    with pytest.raises(QueryError, match="nested deeper"):
        parse(f"({fits})")


def test_comparisons_are_found_anywhere_in_a_tree() -> None:
    """For links and checks: every field a query names, in order."""
    names = [c.name for c in comparisons(parse("a:1 and not (b:2 or c:(3 or 4)) and word"))]
    assert names == ["a", "b", "c", "c"]


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_as_a_value_survives_printing(keyword: str) -> None:
    """The words and, or, not may be values and free text."""
    for tree in (eq("a", keyword), words(keyword), eq("a", keyword.upper())):
        assert parse(to_text(tree)) == tree
