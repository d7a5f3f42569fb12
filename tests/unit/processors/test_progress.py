"""What may be committed, whatever order messages come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatebook.processors.progress import Admission, Progress

P = ("topic", 0)


def test_nothing_is_committable_before_something_is_delivered() -> None:
    """An admitted message is not a delivered one."""
    progress = Progress()
    progress.assign(P, 5)
    assert progress.admit(P, 5) is Admission.PROCESS
    assert progress.committable(P) is None
    progress.done(P, 5)
    assert progress.committable(P) == 6


def test_a_later_message_waits_for_an_earlier_one() -> None:
    """faust-streaming #606: 2586 came and was done, 2585 was not; 2586 must not be committed."""
    progress = Progress()
    progress.assign(P, 2585)
    assert progress.admit(P, 2586) is Admission.REFETCH
    assert progress.admit(P, 2587) is Admission.SKIP
    assert progress.committable(P) is None
    assert [progress.admit(P, o) for o in (2585, 2586, 2587)] == [Admission.PROCESS] * 3


def test_offsets_that_do_not_exist_are_passed_after_one_refetch() -> None:
    """Transaction markers and compaction leave holes; the stream goes on behind them."""
    progress = Progress()
    progress.assign(P, 10)
    assert progress.admit(P, 12) is Admission.REFETCH
    assert progress.admit(P, 12) is Admission.PROCESS


def test_a_revoked_partition_cannot_be_committed() -> None:
    """A batch that ends after the partition went to another worker commits nothing."""
    progress = Progress()
    progress.assign(P, 0)
    progress.admit(P, 0)
    progress.revoke(P)
    progress.done(P, 0)
    assert progress.committable(P) is None


def test_a_lower_offset_begins_anew() -> None:
    """A topic that was deleted and made anew starts over; its messages are processed and
    committed although their offsets are lower."""
    progress = Progress()
    progress.assign(P, 500)
    assert progress.admit(P, 500) is Admission.PROCESS
    progress.done(P, 500)
    progress.note_committed(P, 501)
    assert progress.admit(P, 0) is Admission.BEGIN_ANEW
    assert progress.admit(P, 1) is Admission.PROCESS
    progress.done(P, 0)
    progress.done(P, 1)
    assert progress.committable(P) == 2


def test_what_is_committed_is_not_committed_again_but_a_failed_commit_is() -> None:
    """Only a commit that the broker took counts as made."""
    progress = Progress()
    progress.assign(P, 0)
    progress.admit(P, 0)
    progress.done(P, 0)
    assert progress.committable(P) == 1
    assert progress.committable(P) == 1
    progress.note_committed(P, 1)
    assert progress.committable(P) is None


def test_a_commit_that_ends_after_the_revocation_leaves_nothing_behind() -> None:
    """The next assignment begins with a clean slate."""
    progress = Progress()
    progress.assign(P, 0)
    progress.admit(P, 0)
    progress.done(P, 0)
    progress.revoke(P)
    progress.note_committed(P, 1)
    progress.assign(P, 0)
    progress.admit(P, 0)
    progress.done(P, 0)
    assert progress.committable(P) == 1


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 5))
def test_the_commit_never_passes_an_unprocessed_message(arrivals: list[int], start: int) -> None:
    """For any order of arrivals over a log without holes, every offset before the committed one
    was processed; each once, unless the log began anew."""
    progress = Progress()
    progress.assign(P, start)
    processed: list[int] = []
    anew = False

    def take(offset: int) -> Admission:
        nonlocal anew
        admission = progress.admit(P, offset)
        anew |= admission is Admission.BEGIN_ANEW
        if admission in (Admission.PROCESS, Admission.BEGIN_ANEW):
            processed.append(offset)
            progress.done(P, offset)
        return admission

    for offset in arrivals:
        if take(offset) is Admission.REFETCH:  # the broker fetches again from the expected offset
            for again in range(progress.next_offset[P], offset + 1):
                take(again)
    committed = progress.committable(P)
    assert anew or len(processed) == len(set(processed))
    if committed is not None:
        assert set(range(min(start, *processed), committed)) <= set(processed)
