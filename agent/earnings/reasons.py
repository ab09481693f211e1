"""Why less was credited than was metered, in words. Pure: from the steps of `gossip.credit` to a line each.

For `gpupool earnings`, the status and the doctor. Each step is told in its own figures: shares are of what was metered
in the windows that counted, and several steps may each explain the same loss.
"""

from __future__ import annotations

from gossip.credit import Credit


def why_less(credit: Credit) -> list[str]:
    """Why less was credited than was metered, the first cause first; empty if all of it was.

    What is credited of epochs before, being paid only now, is told as well: it is why more was credited.
    """
    lines = [_uncovered(credit), _witness(credit), _rate(credit), _ceiling(credit), _backlog(credit)]
    found = [line for line in lines if line is not None]
    if found:
        return found
    if credit.windows == 0:
        return ["no work was recorded"]
    return [] if credit.metered_tokens else ["the source that the pool counts by metered nothing"]


def lost_time(credit: Credit, epoch_s: int) -> str | None:
    """How much of an epoch of `epoch_s` seconds no window that counts stands for; None if it is a tenth at most.

    So much is normal: the window that is open at the cut counts with the next epoch. Without any window there is
    nothing to add: `why_less` says that no work was recorded.
    """
    lost_s = epoch_s - credit.worked_s
    if 10 * lost_s <= epoch_s or not credit.windows + credit.windows_uncovered:
        return None
    return f"{lost_s:,} of {epoch_s:,} s without a counted window"


def percent(part: int, whole: int) -> str:
    """A share for people; what is neither nothing nor all never reads like it. `whole` is above zero."""
    per_cent = round(100 * part / whole)
    if per_cent == 0 and part:
        return "less than 1 %"
    return "more than 99 %" if per_cent >= 100 and part < whole else f"{per_cent} %"


def _uncovered(credit: Credit) -> str | None:
    if not credit.windows_uncovered:
        return None
    some = f"{credit.windows_uncovered} window{'s' if credit.windows_uncovered > 1 else ''}"
    return f"{some} without evidence ({credit.uncovered_tokens:,} tokens)"


def _witness(credit: Credit) -> str | None:
    if credit.witnessed_s >= credit.worked_s:
        return None
    return f"witnessed {max(0, credit.witnessed_s):,} of {credit.worked_s:,} s"


def _rate(credit: Credit) -> str | None:
    over = credit.metered_tokens - credit.rate_tokens
    if over <= 0 or not credit.uptime_s:  # without uptime the rate allows nothing, and is not what is wrong
        return None
    if credit.rate_tokens == 0:
        return "no GPU that the policy has a rate for"
    return f"{percent(over, credit.metered_tokens)} capped by GPU rate"


def _ceiling(credit: Credit) -> str | None:
    if credit.receipted_tokens is None:
        return None
    due = min(credit.metered_tokens, credit.rate_tokens) + credit.backlog_tokens
    if credit.receipted_tokens >= due:
        return None
    earlier = f", {credit.backlog_tokens:,} tokens of epochs before among it" if credit.backlog_tokens else ""
    covered = max(0, credit.receipted_tokens)
    return f"receipts cover {percent(covered, due)}{earlier}" if covered else f"no receipts cover it{earlier}"


def _backlog(credit: Credit) -> str | None:
    more = credit.tokens - min(credit.metered_tokens, credit.rate_tokens)
    return f"{more:,} tokens of epochs before were paid only now" if more > 0 else None
