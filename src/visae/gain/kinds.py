"""Kinds of dictionaries that are compared, by the names that tables have."""

from __future__ import annotations

TESTED, UNTRAINED, FROZEN = "tested", "untrained", "frozen"
BESIDE = (UNTRAINED, FROZEN)
"""Kinds of which there are many, so that a rank among them is a test."""

NEURONS = "neurons"
