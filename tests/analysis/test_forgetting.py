import math

import numpy as np
import pytest

from ttsadapt.analysis.forgetting import DEFINITIONS, Scores, figures, with_intervals

R = np.array(
    [
        [1.0, 2.0, 3.0],  # untuned
        [5.0, 2.5, 2.0],
        [6.0, 7.0, 3.5],
        [4.0, 6.5, 9.0],
    ]
)


def test_the_figures_are_those_of_their_definitions():
    found = {name: float(value) for name, value in figures(R).items()}
    assert found.keys() == DEFINITIONS.keys()
    assert found["average"] == pytest.approx((4 + 6.5 + 9) / 3)
    assert found["learnt"] == pytest.approx(((5 - 1) + (7 - 2) + (9 - 3)) / 3)
    assert found["forgetting"] == pytest.approx(((6 - 4) + (7 - 6.5)) / 2)  # the best of stages 1 and 2, not of its own alone
    assert found["forgetting_since_learnt"] == pytest.approx(((5 - 4) + (7 - 6.5)) / 2)
    assert found["backward_transfer"] == pytest.approx(-0.75)
    assert found["forward_transfer"] == pytest.approx(((2.5 - 2) + (3.5 - 3)) / 2)


def test_what_is_unknown_stays_unknown():
    unknown = R.copy()
    unknown[0] = math.nan
    found = figures(unknown)
    assert math.isnan(found["forward_transfer"]) and math.isnan(found["learnt"]) and found["backward_transfer"] == -0.75
    single = figures(np.array([[1.0], [3.0]]))
    assert single["average"] == 3 and single["learnt"] == 2 and math.isnan(single["forgetting"])
    with pytest.raises(ValueError, match="4 rows"):
        figures(np.zeros((3, 3)))


def tasks(noise: float, n: int = 40) -> list[Scores]:
    """R with a difficulty of every sentence that all models share, and noise of their own."""
    rng = np.random.default_rng(1)
    made = []
    for column in R.T:
        difficulty = rng.normal(0, 5, n)
        values = column[:, None] + difficulty - difficulty.mean() + noise * rng.normal(0, 1, (4, n))
        made.append(Scores(values, np.ones(n), [f"text {i}" for i in range(n)]))
    return made


def test_intervals_are_paired():
    """A sentence that is hard for every model does not blur a difference between models; it does blur the average."""
    exact = with_intervals(tasks(0.0))
    assert exact["backward_transfer"].mean == pytest.approx(-0.75)
    assert exact["backward_transfer"].low == pytest.approx(-0.75) == pytest.approx(exact["backward_transfer"].high)
    assert exact["average"].high - exact["average"].low > 0.5
    noisy = with_intervals(tasks(1.0))
    for name in ("forgetting", "backward_transfer", "forward_transfer", "learnt"):
        assert noisy[name].low < noisy[name].mean < noisy[name].high, name
    assert noisy["learnt"].low < 5 < noisy["learnt"].high and noisy["learnt"].n == 120


def test_weights_texts_and_missing_scores_count_as_they_should():
    values = np.array([[0.0, 0.0, 0.0, 9.0], [1.0, 2.0, 4.0, math.nan]])
    scores = Scores(values, np.array([1.0, 1.0, 2.0, 5.0]), ["a", "a", "b", "c"])
    assert scores.means() == pytest.approx([0.0, (1 + 2 + 2 * 4) / 4])  # the last is not known in every row
    assert scores.paired()[0].shape == (2, 2)
    drawn = scores.drawn(500, np.random.default_rng(0))
    assert set(np.round(drawn[:, 1], 6)) <= {1.5, 4.0, 2.75}
    alone = with_intervals([Scores(values[:, :1], np.ones(1), ["a"])])
    assert alone["average"].mean == 1 and math.isnan(alone["average"].low)
