"""A stretch of a row, n elements of x from a place on: loops that vectorise.

u = x − m is about the row's maximum, z = a + x the logit; an element of −inf is a masked class. Places are
unsigned: a signed one might count from the end, and no such loop vectorises.
"""

from __future__ import annotations

import numpy as np

from infoloss.kernels.cpu.arithmetic import REORDERED, capped, exp, fetch, lowest, unmanaged

__all__ = [
    "add_soft",
    "elements",
    "exp_elements",
    "exps",
    "first",
    "kappa",
    "on_scale",
    "power_sums",
    "soft_sums",
    "sum_of_products",
    "sum_of_squares",
    "through_cap",
    "total",
    "unscale",
    "viewed",
]


PART = 256
"""Elements whose exponentials are computed while as many others come from memory."""


@unmanaged()
def exps(x, at, n, m, e, to, ahead):
    """e_j = e^u, while the elements so far ahead, if they are, are brought into the cache."""
    if ahead == 0:
        _exps(x, at, n, m, e, to)
        return
    for j in range(0, n, PART):
        here, part = np.uint64(j), min(PART, n - j)
        fetch(x, at + here + np.uint64(ahead), part)
        _exps(x, at + here, part, m, e, to + here)


@unmanaged(fastmath=REORDERED)
def _exps(x, at, n, m, e, to):
    zero = x.dtype.type(0)
    low = lowest(zero)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        e[to + j] = zero if u < low else exp(v)


# in loops of their own, since a loop with float64 in it takes shorter vectors


@unmanaged(fastmath=REORDERED)
def total(e, at, n):
    """Σ e_j."""
    s = 0.0  # beside the largest element, 1, the others would be rounded away in float32
    for j in range(np.uint64(n)):
        s += np.float64(e[at + j])
    return s


@unmanaged(fastmath=REORDERED)
def sum_of_products(x, at, n, m, e, to):
    """Σ u e^u."""
    s = 0.0
    low = lowest(x.dtype.type(0))
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        s += np.float64(v * e[to + j])
    return s


@unmanaged(fastmath=REORDERED)
def sum_of_squares(e, at, n):
    """Σ e^2u."""
    s = 0.0
    for j in range(np.uint64(n)):
        s += np.float64(e[at + j] * e[at + j])
    return s


@unmanaged(fastmath=REORDERED)
def power_sums(x, at, n, a):
    """Σ z, Σ z² with z = a + x, and the number of masked classes."""
    s = q = 0.0
    masked = 0
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        gone = x[at + j] == gone_at
        z = 0.0 if gone else a + np.float64(x[at + j])
        s += z
        q += z * z
        masked += gone
    return s, q, masked


@unmanaged(fastmath=REORDERED)
def soft_sums(x, at, n, soft, score, row, b, a, m):
    """Σ t u, Σ t z², Σ t e^u, Σ score e^u over the unmasked classes, and whether t wants a masked one."""
    l1 = l2 = l3 = l4 = 0.0
    wanted = False
    low = lowest(x.dtype.type(0))
    for j in range(n):
        x_j = x[at + np.uint64(j)]
        u = x_j - m
        e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
        if x_j == -np.inf:
            wanted |= soft[row, b + j] != 0
        else:
            z = a + np.float64(x_j)
            l1 += soft[row, b + j] * np.float64(u)
            l2 += soft[row, b + j] * z * z
            l3 += soft[row, b + j] * e
        if score.shape[0]:
            l4 += score[row, b + j] * e
    return l1, l2, l3, l4, wanted


@unmanaged(fastmath=REORDERED)
def elements(x, at, n, a, m, c0, c1, c2, d, k, g, to):
    """g_j = e (c0 + c1 u + c2 e) + d + k z, 0 where masked."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        v = low if u < low else u
        e = zero if u < low else exp(v)
        value = e * (c0 + c1 * v + c2 * e) + d + k * (a + x[at + j])
        g[to + j] = zero if x[at + j] == gone_at else value


@unmanaged(fastmath=REORDERED)
def exp_elements(x, at, n, m, c0, g, to):
    """g_j = c0 e, all that most losses need."""
    zero = x.dtype.type(0)
    low = lowest(zero)
    for j in range(np.uint64(n)):
        u = x[at + j] - m
        e = exp(low if u < low else u)
        g[to + j] = zero if u < low else c0 * e


@unmanaged()
def add_soft(x, at, n, soft, score, row, b, a, m, by_label, by_square, by_exp, by_score, g, to):
    """Add the soft target's share of the gradient; what of it goes through the centre."""
    anchor = 0.0
    low = lowest(x.dtype.type(0))
    for j in range(n):
        x_j = x[at + np.uint64(j)]
        if x_j > -np.inf:
            u = x_j - m
            e = np.float64(0) if u < low else np.float64(exp(low if u < low else u))
            t = soft[row, b + j]
            square = by_square * (a + np.float64(x_j))
            pull = t * (by_label + square + by_exp * e)
            anchor += t * square
            if score.shape[0]:
                pull += by_score * score[row, b + j] * e
            g[to + np.uint64(j)] += x.dtype.type(pull)
    return anchor


@unmanaged(fastmath=REORDERED)
def kappa(z, at, n, cap, x, to):
    """x_j = κ(z_j), z_j where there is no cap."""
    if cap == 0:
        for j in range(np.uint64(n)):
            x[to + j] = z[at + j]
    else:
        for j in range(np.uint64(n)):
            x[to + j] = capped(z[at + j], cap)


@unmanaged(fastmath=REORDERED)
def through_cap(x, at, n, cap, g, to):
    """g_j times κ'(z_j) = 1 − (κ(z_j) / κ_max)²."""
    zero = x.dtype.type(0)
    one = x.dtype.type(1)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        r = x[at + j] / cap
        g[to + j] = zero if x[at + j] == gone_at else g[to + j] * (one - r * r)


@unmanaged(fastmath=REORDERED)
def viewed(x, at, n, s, c, shift, b, v, to):
    """v_j = s (x_j − c) + shift_j."""
    gone_at = x.dtype.type(-np.inf)
    if len(shift):
        first = np.uint64(b)
        for j in range(np.uint64(n)):
            value = s * (x[at + j] - c) + shift[first + j]
            v[to + j] = gone_at if x[at + j] == gone_at else value
    else:
        for j in range(np.uint64(n)):
            value = s * (x[at + j] - c)
            v[to + j] = gone_at if x[at + j] == gone_at else value


@unmanaged(fastmath=REORDERED)
def on_scale(x, at, n, c, g, to):
    """Σ g_j (x_j − c)."""
    total = 0.0
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        centred = np.float64(0) if x[at + j] == gone_at else np.float64(x[at + j]) - np.float64(c)
        total += np.float64(g[to + j]) * centred
    return total


@unmanaged(fastmath=REORDERED)
def unscale(x, at, n, s, factor, g, to):
    """s g_j + factor·x_j where the class is not masked."""
    zero = x.dtype.type(0)
    gone_at = x.dtype.type(-np.inf)
    for j in range(np.uint64(n)):
        g[to + j] = s * g[to + j] + (zero if x[at + j] == gone_at else factor * x[at + j])


@unmanaged()
def first(x, at, n, value):
    """The first place of a value that is there."""
    first = np.int32(n)
    for j in range(np.uint64(n)):
        first = min(first, np.int32(j) if x[at + j] == value else np.int32(n))
    return np.int64(first)
