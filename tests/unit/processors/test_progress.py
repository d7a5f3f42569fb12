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


def test_a_message_seen_before_is_skipped() -> None:
    """A message fetched twice in one assignment is processed once."""
    progress = Progress()
    progress.assign(P, 0)
    assert progress.admit(P, 0) is Admission.PROCESS
    assert progress.admit(P, 0) is Admission.SKIP


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 5))
def test_the_commit_never_passes_an_unprocessed_message(arrivals: list[int], start: int) -> None:
    """For any order of arrivals over a log without holes, every offset before the committed one
    was processed, each once."""
    progress = Progress()
    progress.assign(P, start)
    processed: list[int] = []
    for offset in arrivals:
        admission = progress.admit(P, offset)
        if admission is Admission.REFETCH:  # the broker fetches again from the expected offset
            for again in range(progress.next_offset[P], offset + 1):
                if progress.admit(P, again) is Admission.PROCESS:
                    processed.append(again)
                    progress.done(P, again)
        elif admission is Admission.PROCESS:
            processed.append(offset)
            progress.done(P, offset)
    committed = progress.committable(P)
    assert len(processed) == len(set(processed))
    if committed is not None:
        assert set(range(start, committed)) <= set(processed)
