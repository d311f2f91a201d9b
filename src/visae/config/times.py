"""Times as Slurm writes them."""

from __future__ import annotations

import re

# Hours with minutes and seconds, or days with hours. Two numbers are minutes and seconds for sbatch, and hours and
# minutes for most people: those are not taken.
SLURM_TIME = r"^(?:\d+|\d+:\d+:\d+|\d+-\d+(?::\d+){0,2})$"
_PARTS = re.compile(r"^(\d+):(\d+)$")


def slurm_minutes(text: str) -> int:
    """Minutes of a time that matches SLURM_TIME, begun ones counted as whole, as Slurm does.

    Examples
    --------
    >>> slurm_minutes("1-00:30"), slurm_minutes("12:00:00"), slurm_minutes("0:01:30"), slurm_minutes("90")
    (1470, 720, 2, 90)
    """
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        hours, minutes, seconds = 0, parts[0], 0
    else:
        hours, minutes, seconds = parts
    return (int(days or 0) * 24 + hours) * 60 + minutes + -(-seconds // 60)


def explained_time(text: str) -> str:
    """Say what to write instead of a text that does not match SLURM_TIME."""
    if pair := _PARTS.match(text):
        first, second = int(pair[1]), int(pair[2])
        hours = f"{first}:{second:02}:00"
        return (
            f"{text!r} is {first} minutes and {second} seconds to Slurm, and to many people hours; write "
            f"{first + (second > 0)} for minutes or {hours} for hours"
        )
    return f"{text!r} is no time; write minutes (720), HOURS:MINUTES:SECONDS (12:00:00) or DAYS-HOURS (1-12)"
