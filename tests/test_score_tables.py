"""Scores as text: undefined ones, intervals, and nested metrics."""

from stages.reporting.score_tables import Cell, cell, tree_table


def test_undefined_scores_are_dashes_and_groups_keep_their_names():
    assert cell(None) == Cell("–")
    assert cell(0.5) == Cell("0.500")
    assert cell(-0.25, -0.5, 0.125, sign="+") == Cell("-0.250", "[-0.500, +0.125]")
    tree = tree_table("", {"val": {"images": 7, "per_box_by_class": {"a.b": {"boxes": 3}}}, "test": {"images": 8}})
    assert tree.columns == ["metric", "val", "test"]
    assert tree.bodies[0].rows == [("images", [Cell("7"), Cell("8")])]
    assert tree.bodies[1].heading == "Per box, of class a.b"
    assert tree.bodies[1].rows == [("boxes", [Cell("3"), Cell("–")])]
