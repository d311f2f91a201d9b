"""The member of a sweep that its rule chooses, and the figure that shows the choice."""

import json

import polars as pl
import pytest

from visae.config.settings import FigureSettings, SelectSettings
from visae.errors import TrainingError
from visae.figures import pareto
from visae.files import write_json
from visae.sae.choice import choose_member

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def summaries(tmp_path):
    """Three members whose numbers are made up."""
    found = []
    rows = {"a": (0.30, 10, 0.00, 8), "b": (0.20, 30, 0.01, 16), "c": (0.10, 90, 0.20, 32)}
    for name, (error, l0, dead, k) in rows.items():
        folder = tmp_path / name
        metrics = {"explained_variance": 1 - error, "l1": 1.0, "dense_share": 0.0}
        write_json(folder / "summary.json", {"normalized_mse": error, "l0": l0, "dead_share": dead, **metrics})
        write_json(folder / "config.json", {"settings": {"k": k, "seed": 0}})
        for file in ("sae.safetensors", "metrics.parquet"):
            (folder / file).write_text(name)
        found.append(folder / "summary.json")
    return found


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, "c"),
        ({"at_most": {"l0": 64}}, "b"),
        ({"at_most": {"dead_share": 0.0}}, "a"),
        ({"by": "explained_variance", "at_most": {"dead_share": 0.02}}, "b"),
        ({"by": "l0"}, "a"),
    ],
)
def test_the_choice_follows_the_rule(summaries, tmp_path, rule, chosen) -> None:
    selection = choose_member(SelectSettings(**rule), summaries, tmp_path / "sweep")
    assert selection["chosen"] == chosen
    assert selection["members"][1]["settings"] == {"k": 16}
    for file in ("sae.safetensors", "metrics.parquet", "summary.json", "config.json"):
        assert (tmp_path / "sweep" / file).read_bytes() == (tmp_path / chosen / file).read_bytes()
    assert json.loads((tmp_path / "sweep/selection.json").read_text()) == selection


def test_where_none_is_within_the_limits_the_nearest_is_named(summaries, tmp_path) -> None:
    rule = SelectSettings(at_most={"l0": 8, "dead_share": 0.1})
    with pytest.raises(TrainingError, match=r"sweeps: sweep: select: at_most: none of 3 .* a with l0 10 \(at most 8\)"):
        choose_member(rule, summaries, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_the_figures_table_marks_front_and_choice(summaries, tmp_path) -> None:
    write_json(tmp_path / "d/summary.json", {**json.loads(summaries[0].read_text()), "l0": 50})
    write_json(tmp_path / "d/config.json", {"settings": {"k": 24, "seed": 0}})
    rule = SelectSettings(at_most={"l0": 64})
    table = pareto.data(choose_member(rule, [*summaries, tmp_path / "d/summary.json"], tmp_path / "sweep"))
    assert table.select("sae", "on_front", "chosen", "within_limits").rows() == [
        ("a", True, False, True),
        ("b", True, True, True),
        ("d", False, False, True),
        ("c", True, False, False),
    ]
    assert table["settings"].to_list() == ["k=8", "k=16", "k=24", "k=32"]


def test_scores_of_members_are_drawn_beside_their_error(summaries, tmp_path) -> None:
    selection = choose_member(SelectSettings(at_most={"l0": 64}), summaries, tmp_path / "sweep")
    scores = {}
    for name, best in (("a", 0.2), ("b", 0.6), ("c", 0.4)):
        # Only the best latent of a class that could be measured counts.
        rows = {"rank": [0, 1, 0, 0], "f1": [best, 0.0, best + 0.2, None], "f1_random": [0.1, 0.9, 0.1, None]}
        scores[name] = pl.DataFrame(rows)
    table = pareto.data(selection, scores)
    assert table["f1"].to_list() == pytest.approx([0.3, 0.7, 0.5])
    assert table["f1_random"].to_list() == pytest.approx([0.1, 0.1, 0.1])
    error, score = pareto.draw(table, FigureSettings()).axes[:2]
    for axes, column in ((error, "normalized_mse"), (score, "f1")):
        drawn = [tuple(place) for dots in axes.collections for place in dots.get_offsets().tolist()]
        assert set(table.select("l0", column).rows()) <= set(drawn)
    assert len(pareto.draw(pareto.data(selection), FigureSettings()).axes) == 2  # one panel and the colours
