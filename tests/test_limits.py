"""The rate limit for one client's messages: a burst, a steady rate, and a limit on refused messages."""

from chatlab.limits import RateLimit, TokenBucket


class Clock:
    """A clock that moves only when the test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_and_the_next_message_is_refused() -> None:
    bucket = TokenBucket(RateLimit(per_second=0, burst=3))
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_the_bucket_refills_with_time_up_to_the_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(RateLimit(per_second=2, burst=2), clock)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 1.5  # three tokens: one pays for the refused message, two remain
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 3600
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_refused_messages_count_until_patience_is_exhausted() -> None:
    bucket = TokenBucket(RateLimit(per_second=0, burst=1, patience=2))
    for _ in range(3):
        bucket.take()
    assert not bucket.exhausted
    bucket.take()
    assert bucket.exhausted


def test_a_bucket_has_no_instance_dict() -> None:
    """Every client has a bucket, and every message updates it."""
    assert not hasattr(TokenBucket(RateLimit(per_second=1)), "__dict__")
