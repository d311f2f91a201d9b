"""What messages say of many things."""

import pytest

from visae.notices import first_of


@pytest.mark.parametrize(
    ("things", "said"),
    [([], ""), ([1], "1"), ([1, 2], "1, 2"), ([1, 2, 3], "1, 2 and 1 more"), (range(2002), "0, 1 and 2,000 more")],
)
def test_the_first_are_named_and_the_rest_counted(things, said):
    assert first_of(things, 2) == said
    assert first_of(map(str, things), 2) == said
