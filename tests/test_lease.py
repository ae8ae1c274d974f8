"""Whatever jobs and people do, and however long they stand still, a device is never at two jobs."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from quadbench.devices.lab.leases import (
    Claim,
    Claims,
    against_job,
    against_reservation,
    current,
    freed,
    is_held,
    renewed,
    with_job,
    with_reservation,
    without_job,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ANA, BEN, CARA = "ana@lab-1", "ben@lab-1", "cara@lab-2"
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "renew", "end", "reserve", "free"]), st.sampled_from([ANA, BEN, CARA]), st.integers(0, 90)
    ),
    max_size=60,
)


@given(ACTS)
def test_one_job_at_a_time_has_a_device_and_tokens_only_rise(acts: list[tuple[str, str, int]]) -> None:
    claims, now = Claims(), START
    tokens: list[int] = []
    for act, owner, pause_s in acts:
        now += timedelta(seconds=pause_s)
        before, held = claims, [token for token in tokens if is_held(claims, token, now)]
        claim = Claim(owner=owner, purpose=act, until=now + timedelta(seconds=60))
        match act:
            case "take" if against_job(claims, owner, now) is None:
                assert held == []
                claims = with_job(claims, claim)
                tokens.append(claims.token)
            case "renew" if held:
                claims = renewed(claims, claim.until)
            case "end":
                claims = without_job(claims, tokens[-1] if tokens else 0)
            case "reserve" if against_reservation(claims, owner, now) is None:
                claims = with_reservation(claims, claim)
            case "free":
                claims = freed(claims)
        assert claims.token >= before.token
        assert tokens == sorted(set(tokens))
        assert sum(is_held(claims, token, now) for token in tokens) <= 1
        assert all(not is_held(claims, token, now) for token in tokens[:-1])


@given(st.sampled_from([ANA, BEN]), st.sampled_from([ANA, BEN]), st.integers(-5, 5))
def test_who_has_reserved_a_device_runs_there_and_nobody_else_for_as_long(holder: str, other: str, seconds: int) -> None:
    reservation = Claim(owner=holder, purpose="demo", until=START + timedelta(seconds=seconds))
    claims = with_reservation(Claims(), reservation)
    stands = seconds > 0 and holder != other
    assert against_job(claims, other, START) == (reservation if stands else None)
    assert against_reservation(claims, other, START) == (reservation if stands else None)
    assert current(claims, START).reservation == (reservation if seconds > 0 else None)


def test_a_job_within_a_reservation_leaves_it_as_it_is() -> None:
    reservation = Claim(owner=ANA, purpose="demo", until=START + timedelta(hours=1))
    job = Claim(owner=ANA, purpose="run", until=START + timedelta(minutes=1))
    claims = with_job(with_reservation(Claims(), reservation), job)
    assert against_job(claims, ANA, START) == job
    assert without_job(claims, claims.token).reservation == reservation
