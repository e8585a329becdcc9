"""Looks: judging a study several times while seeds are added, with the error rate of judging once."""

from __future__ import annotations

__all__ = ["alpha_at", "schedule"]


def schedule(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds at which a study is judged: doubling from the first, and the most.

    A last step that would add less than half of what is there is joined to the one before.

    Raises:
        ValueError: fewer than 2 seeds at the first look, or no room for a second.

    Example:
        >>> schedule(5, 40), schedule(5, 50), schedule(20, 25)
        ((5, 10, 20, 40), (5, 10, 20, 50), (20, 25))
    """
    if first < 2:
        raise ValueError(f"the first look needs at least 2 seeds, got {first}")
    if most <= first:
        raise ValueError(f"the most seeds must be more than the {first} of the first look, got {most}")
    looks = [first]
    while 2 * looks[-1] < most:
        looks.append(2 * looks[-1])
    if len(looks) > 1 and most < 1.5 * looks[-1]:
        looks.pop()
    return (*looks, most)


def alpha_at(looks: tuple[int, ...], seeds: int, *, alpha: float = 0.05) -> float:
    """What the look at (or next after) a number of seeds may spend of the error rate.

    Linear spending, α(t) = αt with t = n/n_max: a look at n_k seeds after one at n_{k−1} is judged at

        α_k = α (n_k − n_{k−1}) / n_max,   Σ_k α_k = α.

    By the union bound a false verdict at any look then has at most the probability α, whatever the looks have
    in common: here they share seeds and test rows, and intervals are of Student's t, so that the usual
    boundaries, which know the correlation of looks, do not hold.

    Args:
        looks: numbers of seeds, fixed before the first.
        seeds: how many there are.
        alpha: for the whole study.

    Source: Lan and DeMets, Biometrika 70 (1983); the linear function: Kim and DeMets, Biometrika 74 (1987).

    Example:
        >>> [alpha_at((5, 10, 20, 40), seeds) for seeds in (5, 10, 20, 40)]
        [0.00625, 0.00625, 0.0125, 0.025]
    """
    before = 0
    for look in looks:
        if seeds <= look or look == looks[-1]:
            return alpha * (look - before) / looks[-1]
        before = look
    return alpha
