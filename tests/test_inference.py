"""Intervals, Holm and verdicts against hand computations and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infoloss.study.inference import Cell, Paired, Verdict, judge, minimum_detectable_effect
from infoloss.study.inference.estimates import crossed, resampled_t, seeds_t
from infoloss.study.inference.evidence import Components
from infoloss.study.inference.power import more_seeds
from infoloss.study.inference.verdicts import holm


def bare(differences: list[float], *, resampled: bool = True) -> Paired:
    """Scores from elsewhere: no rows."""
    return Paired(np.array(differences), None, None, train_rows=60, test_rows=20, resampled=resampled)


def rowwise(values: list[np.ndarray], rows: list[np.ndarray], *, resampled: bool = True) -> Paired:
    means = np.array([value.mean() for value in values])
    return Paired(
        means, tuple(rows), tuple(values), train_rows=60, test_rows=len(rows[0]), resampled=resampled
    )


def drawn(
    seed: int, *, seeds: int = 6, rows: int = 40, test: int = 15, fixed: bool = False, mean: float = 0.0
) -> Paired:
    generator = np.random.default_rng(seed)
    taste = generator.standard_normal(rows)
    chosen = [generator.choice(rows, test, replace=False) for _ in range(seeds)]
    if fixed:
        chosen = [chosen[0]] * seeds
    values = [
        mean + taste[ids] + 0.3 * generator.standard_normal() + 0.5 * generator.standard_normal(test)
        for ids in chosen
    ]
    return rowwise(values, chosen, resampled=not fixed)


def cell(
    evidence: Paired,
    *,
    margin: float = 0.5,
    higher: bool = True,
    metric: str = "accuracy",
    loss: str = "focal",
) -> Cell:
    return Cell("labels", metric, loss, evidence, margin, higher)


def verdict(evidence: Paired, **options: object) -> Verdict:
    [found] = judge([cell(evidence, **options)])  # type: ignore[arg-type]
    return found


class TestSeedsAndResampledT:
    def test_without_rows_on_a_fixed_test_set_it_is_the_paired_t(self) -> None:
        ours, baseline = np.array([97.1, 96.0, 98.2, 97.7]), np.array([96.2, 96.1, 97.0, 97.4])
        expected = stats.ttest_rel(ours, baseline)
        found = verdict(bare(list(ours - baseline), resampled=False))
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        low, high = expected.confidence_interval(0.95)
        assert found.interval == pytest.approx((low, high), rel=1e-12)
        low, high = expected.confidence_interval(0.90)
        assert found.equivalence_interval == pytest.approx((low, high), rel=1e-12)

    def test_corrected_resampled_t(self) -> None:
        differences = [1.0, 0.2, 0.7, 0.4, 0.9]
        error = math.sqrt(np.var(differences, ddof=1) * (1 / 5 + 20 / 60))
        expected = 2 * stats.t.sf(np.mean(differences) / error, 4)
        found = resampled_t(bare(differences))
        assert found.standard_error == pytest.approx(error, rel=1e-12)
        assert found.p_value == pytest.approx(expected, rel=1e-9)
        assert verdict(bare(differences)).p_value == pytest.approx(expected, rel=1e-9)


class TestCrossed:
    def test_fixed_test_set_gives_the_mean_squares_of_a_two_way_table(self) -> None:
        evidence = drawn(1, seeds=4, test=12, fixed=True)
        table = np.stack(evidence.contributions)  # (S, n)
        seeds, n = table.shape
        row_means, seed_means, mean = table.mean(0), table.mean(1), table.mean()
        rows_square = seeds * np.sum((row_means - mean) ** 2) / (n - 1)
        rest = table - row_means[None] - seed_means[:, None] + mean
        rest_square = np.sum(rest**2) / ((n - 1) * (seeds - 1))
        found = evidence.components
        assert found.shared == pytest.approx((rows_square - rest_square) / seeds / n, rel=1e-9)
        assert found.spread == pytest.approx(np.var(seed_means, ddof=1), rel=1e-12)
        assert found.rows == pytest.approx(np.sum((row_means - mean) ** 2) / n**2, rel=1e-9)

    def test_overlapping_test_sets_by_double_loop(self) -> None:
        evidence = drawn(2, seeds=5, rows=25, test=9)
        numerator = denominator = overlaps = 0.0
        for s, ids in enumerate(evidence.examples):
            for t, others in enumerate(evidence.examples):
                if s == t:
                    continue
                shared = set(ids.tolist()) & set(others.tolist())
                for i in shared:
                    left = evidence.contributions[s][list(ids).index(i)] - evidence.differences[s]
                    right = evidence.contributions[t][list(others).index(i)] - evidence.differences[t]
                    numerator += left * right / 81
                    denominator += (1 - 2 / 9 + len(shared) / 81) / 81
                overlaps += len(shared) / 81
        assert evidence.components.shared == pytest.approx(numerator / denominator * overlaps / 20, rel=1e-9)

    def test_degrees_of_freedom_come_from_the_rows_that_matter(self) -> None:
        # contributions (+1, −1, 0 …) in each seed: two of 12 rows matter, equally: k = 2·2² / (2 − 2²/12)
        values = np.zeros(12)
        values[:2] = 1.0, -1.0
        evidence = rowwise([values] * 3, [np.arange(12)] * 3, resampled=False)
        assert evidence.components.shared_degrees == pytest.approx(8 / (2 - 4 / 12))

    def test_half_width_adds_the_squares_of_both_parts(self) -> None:
        components = Components(seeds=4, spread=0.8, shared=0.3, shared_degrees=50.0)
        expected = math.sqrt(stats.t.isf(0.025, 3) ** 2 * 0.2 + stats.t.isf(0.025, 50) ** 2 * 0.3)
        assert components.half_width(0.025) == pytest.approx(expected, rel=1e-12)

    def test_test_sets_without_a_common_row_leave_the_seeds_alone(self) -> None:
        generator = np.random.default_rng(0)
        rows = [np.arange(10 * s, 10 * s + 10) for s in range(6)]
        values = [generator.standard_normal() + 0.01 * generator.standard_normal(10) for _ in rows]
        evidence = rowwise(values, rows)
        assert evidence.components.shared == 0.0
        assert crossed(evidence).interval(0.95) == pytest.approx(seeds_t(evidence).interval(0.95), rel=1e-12)

    def test_the_unequal_sizes_of_test_sets_are_kept_apart(self) -> None:
        rows = [np.arange(4), np.arange(2, 8), np.arange(1, 6)]
        generator = np.random.default_rng(5)
        evidence = rowwise([generator.standard_normal(len(ids)) for ids in rows], rows)
        overlap = np.array([[len(set(a) & set(b)) / (len(a) * len(b)) for b in rows] for a in rows])
        sizes = np.array([4, 6, 5])
        factor = overlap * (1 - 1 / sizes[:, None] - 1 / sizes[None] + overlap)
        centred = np.zeros((3, 8))
        for s, ids in enumerate(rows):
            centred[s, ids] = (evidence.contributions[s] - evidence.differences[s]) / sizes[s]
        products = centred @ centred.T
        off = ~np.eye(3, dtype=bool)
        expected = max(0.0, products[off].sum()) / factor[off].sum() * overlap[off].mean()
        assert evidence.components.shared == pytest.approx(expected, rel=1e-9, abs=1e-15)

    def test_equal_seeds_with_different_rows_are_no_certainty(self) -> None:
        # one better row in every seed, each time another: the seeds' spread is exactly 0
        rows = [np.arange(10 * s, 10 * s + 10) for s in range(3)]
        values = [np.eye(10)[0] * 100.0 for _ in rows]
        found = verdict(rowwise(values, rows))
        assert found.outcome == "undecided"
        assert found.interval[0] < 0.0 < found.interval[1]


class TestHolm:
    def test_by_hand(self) -> None:
        adjusted, levels = holm([0.02, 0.001, 0.30, 0.012])
        # ordered .001·4, .012·3, .02·2, .30·1; step 3 gives .04 < .05, so only the last is kept
        assert adjusted == pytest.approx([0.04, 0.004, 0.30, 0.036])
        assert levels == pytest.approx([1 - 0.05 / 2, 1 - 0.05 / 4, 1 - 0.05, 1 - 0.05 / 3])

    def test_stops_at_the_first_that_is_kept(self) -> None:
        adjusted, levels = holm([0.03, 0.01, 0.04])
        assert adjusted == pytest.approx([0.06, 0.03, 0.06])
        assert levels == pytest.approx([0.975, 1 - 0.05 / 3, 0.975])

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-2.0, 2.0), min_size=1, max_size=6), st.integers(0, 1000))
    def test_adjusted_interval_and_p_value_agree(self, means: list[float], seed: int) -> None:
        cells = [cell(drawn(seed + k, mean=mean), loss=str(k)) for k, mean in enumerate(means)]
        for found in judge(cells):
            excludes = found.adjusted_interval[0] > 0.0 or found.adjusted_interval[1] < 0.0
            assert excludes == (found.adjusted_p_value < 0.05) == (found.outcome in ("better", "worse"))
            assert found.adjusted_interval[0] <= found.interval[0] + 1e-12


class TestVerdicts:
    def test_better_worse_and_their_direction(self) -> None:
        up = bare([1.0, 1.1, 0.9, 1.2, 1.0])
        assert verdict(up).outcome == "better"
        assert verdict(up, higher=False).outcome == "worse"
        assert verdict(bare([-1.0, -1.1, -0.9, -1.2, -1.0]), higher=False).outcome == "better"

    def test_negligible(self) -> None:
        found = verdict(bare([0.20, 0.21, 0.19, 0.20, 0.22]))
        assert found.outcome == "better"
        assert found.negligible
        assert "negligible" in found.sentence

    def test_equivalent(self) -> None:
        found = verdict(bare([0.1, -0.1, 0.05, -0.02, 0.0]))
        assert (found.outcome, found.negligible, found.more_seeds) == ("equivalent", False, None)

    def test_undecided_says_how_many_seeds(self) -> None:
        found = verdict(bare([1.0, -1.2, 0.9, -0.7, 0.3], resampled=False))
        assert found.outcome == "undecided"
        spread = np.var([1.0, -1.2, 0.9, -0.7, 0.3], ddof=1)

        def half(seeds: int) -> float:
            return float(stats.t.isf(0.025, seeds - 1) * math.sqrt(spread / seeds))

        total = 5 + found.more_seeds
        assert half(total) <= 0.25 < half(total - 1)
        assert f"about {found.more_seeds} more seeds" in found.sentence

    def test_seeds_needed_do_not_look_at_the_effect(self) -> None:
        noise = np.array([1.0, -1.2, 0.9, -0.7, 0.3])
        answers = {verdict(bare(list(noise + shift))).more_seeds for shift in (-0.3, 0.0, 0.4)}
        assert len(answers) == 1

    def test_seeds_needed_settle_every_observed_difference(self) -> None:
        components = Components(seeds=5, spread=0.4, shared=0.002, shared_degrees=80.0)
        total = 5 + more_seeds(components, 0.5, comparisons=7)
        for difference in np.linspace(-1.0, 1.0, 81):
            significant = abs(difference) > components.half_width(0.025 / 7, total)
            equivalent = abs(difference) + components.half_width(0.05, total) < 0.5
            assert significant or equivalent

    def test_few_test_rows_cannot_be_settled_by_seeds(self) -> None:
        found = verdict(drawn(3, seeds=20, test=10, fixed=True), margin=0.2)
        assert (found.outcome, found.more_seeds) == ("undecided", None)
        assert "no number of seeds" in found.sentence
        assert found.covers == "seeds and test examples, on this training set"

    @settings(max_examples=25, deadline=None)
    @given(
        st.floats(0.01, 10.0),
        st.floats(0.0, 0.05),
        st.floats(0.2, 3.0),
        st.floats(1.0, 3.0),
        st.integers(1, 20),
    )
    def test_seeds_needed_are_monotone(
        self, spread: float, shared: float, margin: float, factor: float, comparisons: int
    ) -> None:
        def needed(spread: float, margin: float, comparisons: int) -> float:
            found = more_seeds(Components(5, spread, shared, 30.0), margin, comparisons=comparisons)
            return math.inf if found is None else found

        here = needed(spread, margin, comparisons)
        assert needed(spread, margin * factor, comparisons) <= here
        assert needed(spread * factor, margin, comparisons) >= here
        assert needed(spread, margin, comparisons + 1) >= here

    def test_more_cells_make_it_harder(self) -> None:
        evidence = bare([0.5, 0.9, 0.2, 0.7, 0.6], resampled=False)
        alone = verdict(evidence)
        among = judge([cell(evidence), *(cell(bare([0.1, -0.3, 0.2]), loss=str(k)) for k in range(20))])[0]
        assert alone.outcome == "better"
        assert among.outcome == "undecided"
        assert among.interval == alone.interval

    def test_no_cells(self) -> None:
        assert judge([]) == []


class TestIdentical:
    def test_identical_predictions_are_an_exact_statement(self) -> None:
        zeros = rowwise([np.zeros(30)] * 3, [np.arange(30)] * 3, resampled=False)
        labels, probabilities = judge([cell(zeros), cell(zeros, metric="nll", margin=0.01, higher=False)])
        for found in (labels, probabilities):
            assert found.identical
            assert found.outcome == "equivalent"
            assert found.interval == found.adjusted_interval == found.equivalence_interval == (0.0, 0.0)
            assert (found.p_value, found.standard_error, found.difference) == (1.0, 0.0, 0.0)
            assert "exactly" in found.sentence

    def test_equal_labels_with_other_probabilities_are_no_identity(self) -> None:
        rows = [np.arange(30)] * 3
        zeros = rowwise([np.zeros(30)] * 3, rows, resampled=False)
        generator = np.random.default_rng(0)
        other = rowwise([generator.standard_normal(30) for _ in rows], rows, resampled=False)
        labels, _ = judge([cell(zeros), cell(other, metric="nll", higher=False)])
        assert not labels.identical
        assert labels.outcome == "undecided"  # 30 rows cannot exclude a difference of half a point
        assert labels.equivalence_interval[1] == pytest.approx(1.6449 * math.sqrt(2) * 100 / 30, rel=1e-4)
        # the rule of three: a share of rows that stays unseen in 30 with probability .1
        assert labels.equivalence_interval[1] == pytest.approx(100 * (1 - 0.1 ** (1 / 30)), rel=0.05)
        assert labels.more_seeds is None
        assert "the same rows" in labels.sentence

    def test_one_row_of_difference_does_not_narrow_the_interval(self) -> None:
        rows = [np.arange(30)] * 3
        nearly = rowwise([np.eye(30)[0] * 100.0, np.zeros(30), np.zeros(30)], rows, resampled=False)
        tied = rowwise([np.zeros(30)] * 3, rows, resampled=False)
        widths = [np.ptp(verdict(evidence).equivalence_interval) for evidence in (tied, nearly)]
        assert widths[1] >= widths[0] > 2.0

    def test_more_seeds_reach_more_rows(self) -> None:
        # 100 of 1000 rows a seed; 3 seeds have seen some 270, too few for half a point, all 1000 are enough
        generator = np.random.default_rng(0)
        rows = [generator.choice(1000, 100, replace=False) for _ in range(3)]
        found = verdict(rowwise([np.zeros(100)] * 3, rows), margin=0.7)
        assert found.outcome == "undecided"
        assert 3 < found.more_seeds < 12

    def test_equal_labels_on_many_rows_are_equivalent(self) -> None:
        zeros = rowwise([np.zeros(500)] * 3, [np.arange(500 * s, 500 * s + 500) for s in range(3)])
        found = verdict(zeros)
        assert (found.outcome, found.identical) == ("equivalent", False)

    def test_one_seed_is_enough_for_identity(self) -> None:
        zeros = rowwise([np.zeros(30)], [np.arange(30)])
        assert verdict(zeros, metric="nll").outcome == "equivalent"

    def test_equal_scores_without_rows(self) -> None:
        assert verdict(bare([0.0] * 5)).outcome == "equivalent"
        assert verdict(bare([0.0] * 3)).outcome == "undecided"
        # a score file may be rounded: one equal NLL proves nothing
        assert verdict(bare([0.0]), metric="nll").outcome == "undecided"


class TestHardInputs:
    def test_one_seed(self) -> None:
        found = verdict(bare([0.7]))
        assert (found.outcome, found.difference, found.more_seeds) == ("undecided", 0.7, 2)
        assert found.interval == (-math.inf, math.inf)
        assert found.p_value == 1.0
        assert "one seed" in found.sentence

    def test_two_seeds_have_one_degree_of_freedom(self) -> None:
        found = verdict(bare([1.0, 2.0], resampled=False))
        assert found.p_value == pytest.approx(2 * stats.t.sf(3.0, 1), rel=1e-9)

    def test_equal_nonzero_scores_without_rows_are_no_certainty(self) -> None:
        assert verdict(bare([1.0, 1.0, 1.0])).outcome == "undecided"

    @pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
    def test_values_that_are_not_finite_spoil_their_own_cell_only(self, bad: float) -> None:
        broken, sound = judge([cell(bare([bad, 1.0, 1.0])), cell(bare([1.0, 1.1, 0.9]), loss="kl")])
        assert (broken.outcome, broken.more_seeds, broken.p_value) == ("undecided", None, 1.0)
        assert broken.interval == (-math.inf, math.inf)
        assert "not finite" in broken.sentence
        assert math.isfinite(sound.standard_error)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"differences": np.zeros(0)}, "differences must be"),
            ({"differences": np.zeros((2, 2))}, "differences must be"),
            ({"contributions": None}, "together"),
            ({"examples": (np.arange(3),)}, "2 seeds"),
            ({"examples": (np.arange(3), np.array([0, 1]))}, r"examples\[1\]"),
            ({"examples": (np.arange(3), np.array([0, 1, 1]))}, "more than once"),
            ({"differences": np.array([0.0, 1.0])}, r"contributions\[1\]"),
        ],
    )
    def test_evidence_that_does_not_fit(self, options: dict[str, object], message: str) -> None:
        sound = {
            "differences": np.zeros(2),
            "examples": (np.arange(3), np.arange(3)),
            "contributions": (np.zeros(3), np.zeros(3)),
        }
        with pytest.raises(ValueError, match=message):
            Paired(**{**sound, **options}, train_rows=6, test_rows=3, resampled=True)  # type: ignore[arg-type]

    @pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
    def test_margin(self, margin: float) -> None:
        with pytest.raises(ValueError, match="margin of focal"):
            cell(bare([1.0, 2.0]), margin=margin)

    def test_level(self) -> None:
        with pytest.raises(ValueError, match="level"):
            judge([], level=95)


class TestLaws:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.floats(-1.5, 1.5), st.booleans())
    def test_exchanging_the_losses_mirrors_the_verdict(self, seed: int, mean: float, fixed: bool) -> None:
        evidence = drawn(seed, mean=mean, fixed=fixed)
        mirrored = rowwise(
            [-values for values in evidence.contributions], list(evidence.examples), resampled=not fixed
        )
        one, two = verdict(evidence), verdict(mirrored)
        assert two.interval == pytest.approx((-one.interval[1], -one.interval[0]))
        opposite = {"better": "worse", "worse": "better"}
        assert two.outcome == opposite.get(one.outcome, one.outcome)
        assert two.more_seeds == one.more_seeds

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0.001, 1000.0))
    def test_the_unit_does_not_matter(self, seed: int, unit: float) -> None:
        evidence = drawn(seed, mean=0.4)
        scaled = rowwise([unit * values for values in evidence.contributions], list(evidence.examples))
        one, two = verdict(evidence), verdict(scaled, margin=0.5 * unit)
        assert two.p_value == pytest.approx(one.p_value, rel=1e-6)
        assert np.array(two.interval) == pytest.approx(unit * np.array(one.interval), rel=1e-9)
        assert two.outcome == one.outcome

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10_000))
    def test_the_order_of_seeds_and_rows_does_not_matter(self, seed: int) -> None:
        evidence = drawn(seed)
        generator = np.random.default_rng(seed)
        names = generator.permutation(40) + 1000
        seeds = generator.permutation(evidence.seeds)
        orders = [generator.permutation(15) for _ in seeds]
        moved = rowwise(
            [evidence.contributions[s][order] for s, order in zip(seeds, orders, strict=True)],
            [names[evidence.examples[s][order]] for s, order in zip(seeds, orders, strict=True)],
        )
        assert verdict(moved).interval == pytest.approx(verdict(evidence).interval)

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000), st.floats(-2.0, 2.0), st.booleans())
    def test_p_value_is_where_the_interval_ends_at_0(self, seed: int, mean: float, fixed: bool) -> None:
        found = crossed(drawn(seed, mean=mean, fixed=fixed))
        low, high = found.interval(1.0 - found.p_value)
        assert min(abs(low), abs(high)) == pytest.approx(0.0, abs=1e-6)

    def test_p_values_far_out(self) -> None:
        found = seeds_t(bare([1.0 + 1e-9 * k for k in range(30)]))
        assert 0.0 <= found.p_value < 1e-100


class TestMinimumDetectableEffect:
    def test_published_values(self) -> None:
        assert minimum_detectable_effect(1.0, 5) == pytest.approx(1.68, abs=0.005)
        assert minimum_detectable_effect(1.0, 5, comparisons=8) == pytest.approx(3.0, abs=0.05)

    def test_power_by_simulation(self) -> None:
        effect = minimum_detectable_effect(2.0, 8)
        draws = np.random.default_rng(0).normal(effect, 2.0, (20_000, 8))
        found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.012)

    def test_evidence_brings_its_test_rows_along(self) -> None:
        evidence = drawn(4, seeds=20, fixed=True)
        here = minimum_detectable_effect(evidence)
        alone = minimum_detectable_effect(float(np.std(evidence.differences, ddof=1)), 20)
        endless = minimum_detectable_effect(evidence, 100_000)
        assert alone < endless < here
        # what remains is the test rows' standard error times (1.96 + .84)
        shared = evidence.components
        critical = stats.t.isf(0.025, shared.shared_degrees)
        assert endless == pytest.approx((critical + 0.8416) * math.sqrt(shared.shared), rel=0.03)

    def test_one_seed_detects_nothing(self) -> None:
        assert minimum_detectable_effect(1.0, 1) == math.inf
        assert minimum_detectable_effect(bare([1.0])) == math.inf

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"spread": -1.0, "seeds": 5}, "spread"),
            ({"spread": 1.0}, "seeds"),
            ({"spread": 1.0, "seeds": 5, "power": 80}, "power"),
            ({"spread": 1.0, "seeds": 5, "comparisons": 0}, "comparisons"),
        ],
    )
    def test_errors(self, arguments: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            minimum_detectable_effect(**arguments)  # type: ignore[arg-type]
