"""The catalogue: every loss and regulariser of the literature as an expression over row statistics.

Notation of the docstrings, for one row: z logits, C classes, y the label, t a soft target,
q = softmax(z), p = q_y, L = ln Σ e^z_j (lse), H(q) = −Σ q_j ln q_j. All values are in nats. A loss
that depends on the row through p alone has the gradient ℓ'(p)·p·(1[j=y] − q_j). "Proper" means that
the expected loss is smallest where q = p(y|x).

Each function builds a :class:`~infoloss.Term`; call that on logits and target.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from infoloss.catalogue import Range, entry
from infoloss.terms import Term, exp, expm1, log, maximum, statistic, step

__all__ = [
    "balanced_softmax",
    "brier",
    "confidence_penalty",
    "cross_entropy",
    "entropy",
    "focal",
    "focal_flsd",
    "generalized_cross_entropy",
    "jensen_shannon",
    "kl",
    "logit_adjusted",
    "logit_norm",
    "logit_penalty",
    "mae",
    "max_suppression",
    "min_ent",
    "mix_ent",
    "normalized_cross_entropy",
    "pc_softmax",
    "poly1",
    "rescaled_square",
    "reverse_cross_entropy",
    "reverse_kl",
    "soft_bootstrap",
    "squentropy",
    "symmetric_cross_entropy",
    "taylor",
    "z_loss",
]

L = statistic("lse")
Z_Y = statistic("target_logit")
Z_Y2 = statistic("target_logit_square")
P_Y = statistic("target_probability")
S1 = statistic("logit_sum")
S2 = statistic("logit_square_sum")
C = statistic("classes")
CE = L - Z_Y
H = L - statistic("expected_logit")
LOG_P = Z_Y - L
MISS = -expm1(LOG_P)  # 1 − p without cancellation
SMALLEST_MISS = 1e-12  # keeps powers of 1 − p below 1 differentiable at p = 1


def _number(value: Any, name: str, low: float, high: float, *, open_low: bool = False) -> float:
    if not isinstance(value, float | int):
        raise ValueError(f"{name} must be a number, got {value}")
    if not (low <= value <= high) or (open_low and value == low):
        raise ValueError(
            f"{name} must be {'above' if open_low else 'at least'} {low:g} and at most {high:g}, got {value}"
        )
    return float(value)


def _reverse(floor: float) -> Term:
    """Σ q_j (−ln max(t_j, floor))."""
    return -statistic("expected_log_target", floor=_number(floor, "floor", 0, 1, open_low=True))


@entry("loss", source="Good (1952), Rational Decisions; the negative log-likelihood", key="good1952rational")
def cross_entropy(*, label_smoothing: float = 0.0) -> Term:
    """Cross entropy, the negative log-likelihood of the label.

        (1 − ε)(L − z_y) + ε (L − Σz_j / C)

    Gradient: q_j − (1 − ε)1[j=y] − ε/C. Proper for ε = 0; for ε > 0 the minimiser is (1 − ε)p(y|x) + ε/C.
    Soft targets: expected. Cost: one pass; the moments Σe^u, z_y (and Σz).

    Args:
        label_smoothing: ε in [0, 1]. Unlike the option of the call, it belongs to this term alone in a
            sum, and class weights multiply the whole row by w_y.

    Source: Good (1952); label smoothing: Szegedy et al., arXiv 1512.00567, §7.

    >>> import torch, infoloss as il
    >>> il.cross_entropy()(torch.zeros(1, 4), torch.tensor([2]))
    tensor(1.3863)
    """
    epsilon = _number(label_smoothing, "label_smoothing", 0, 1)
    return CE if epsilon == 0 else (1 - epsilon) * CE + epsilon * (L - S1 / C)


@entry("loss", source="Kullback and Leibler (1951)", key="kullback1951information")
def kl() -> Term:
    """Kullback–Leibler divergence KL(t‖q) of the prediction from the target.

        Σ t_j ln t_j + L − Σ t_j z_j

    For a hard label H(t) = 0, so it equals cross entropy, gradient included, bit for bit; for a soft
    target it differs by the constant H(t). Gradient: q_j − t_j. Proper. Soft targets: its own formula.
    Cost: as cross entropy.

    Source: Kullback and Leibler (1951).

    >>> import torch, infoloss as il
    >>> t = torch.tensor([[0.25, 0.75]])
    >>> abs(float(il.kl()(t.log(), t))) < 1e-6
    True
    """
    return CE - statistic("target_entropy")


@entry(
    "loss", source="Kullback and Leibler (1951), with the arguments exchanged", key="kullback1951information"
)
def reverse_kl(*, floor: float = 1e-6) -> Term:
    """Reverse Kullback–Leibler divergence KL(q‖t) of the target from the prediction.

        Σ q_j (ln q_j − ln max(t_j, ε))

    The floor ε makes it finite where the target is 0, hard labels included. Gradient:
    q_j (ln q_j − ln max(t_j, ε) − ℓ). Mode seeking, not proper for hard labels. Soft targets: its own
    formula. Cost: one pass; Σe^u, Σue^u and the target's row.

    Args:
        floor: ε in (0, 1].

    Source: Kullback and Leibler (1951).

    >>> import torch, infoloss as il
    >>> t = torch.tensor([[0.25, 0.75]])
    >>> abs(float(il.reverse_kl()(t.log(), t))) < 1e-6
    True
    """
    return _reverse(floor) - H


@entry("loss", source="Wang et al., arXiv 1908.06112, eq. 6", key="wang2019symmetric")
def reverse_cross_entropy(*, floor: float = 1e-6) -> Term:
    """Reverse cross entropy: the cross entropy of the target under the prediction.

        −Σ q_j ln max(t_j, ε); for a hard label A(1 − p), A = −ln ε

    For hard labels a multiple of the mean absolute error, whatever ε. Gradient for hard labels:
    A p (q_j − 1[j=y]). Not proper: its minimiser is the most likely class. Soft targets: its own formula.
    Cost: one pass; Σe^u, e^u_y.

    Args:
        floor: ε in (0, 1].

    Source: Wang et al., arXiv 1908.06112, eq. 6.

    >>> import torch, infoloss as il
    >>> il.reverse_cross_entropy(floor=0.1)(torch.zeros(1, 2), torch.tensor([0]))
    tensor(1.1513)
    """
    return _reverse(floor)


@entry(
    "loss",
    source="Oladipupo, arXiv 2501.13709",
    key="oladipupo2025minent",
    search={"w1": Range(0.3, 3, log=True), "w2": Range(0.01, 1, log=True)},
)
def min_ent(*, w1: float = 1.1933, w2: float = 0.1298) -> Term:
    """MIN-ENT: cross entropy plus the prediction's entropy, which is minimised too.

        w1 (L − z_y) + w2 H(q)

    The opposite sign of the confidence penalty. Gradient: w1(q_j − 1[j=y]) − w2 q_j(ln q_j + H); the label
    logit's keeps its sign iff w2/w1 ≤ 3.591. Not proper for w2 ≠ 0 (over-confident). With w1 = β,
    w2 = 1 − β it is soft bootstrapping. Soft targets: expected. Cost: one pass; Σe^u, Σue^u, z_y.

    Args:
        w1, w2: the defaults are the published operating point, its logarithms' bases turned to nats.

    Source: Oladipupo, arXiv 2501.13709.

    >>> import torch, infoloss as il
    >>> il.min_ent(w1=1.0, w2=0.5)(torch.zeros(1, 4), torch.tensor([0]))
    tensor(2.0794)
    """
    return w1 * CE + w2 * H


@entry(
    "loss",
    source="Oladipupo, arXiv 2501.13709",
    key="oladipupo2025minent",
    search={"w1": Range(0.1, 3, log=True), "w2": Range(0.01, 1, log=True)},
)
def mix_ent(*, w1: float = 0.2832, w2: float = 0.3740, floor: float = 1e-6) -> Term:
    """MIX-ENT: cross entropy plus the reverse cross entropy of the target under the prediction.

        w1 (L − z_y) + w2 Σ q_j (−ln max(t_j, ε)); for a hard label w1 (L − z_y) + w2 A(1 − p), A = −ln ε

    With hard labels it is symmetric cross entropy, and cross entropy plus a multiple of the mean
    absolute error; only w2·A matters. Gradient for hard labels: (w1 + w2 A p)(q_j − 1[j=y]). Not proper for
    w2 ≠ 0. Soft targets: its own formula. Cost: one pass; Σe^u, z_y and the target's row.

    Args:
        w1, w2: the defaults are the published operating point, its logarithms' bases turned to nats.
        floor: ε in (0, 1].

    Source: Oladipupo, arXiv 2501.13709.

    >>> import torch, infoloss as il
    >>> il.mix_ent(w1=1.0, w2=1.0, floor=0.1)(torch.zeros(1, 2), torch.tensor([0]))
    tensor(1.8444)
    """
    return w1 * CE + w2 * _reverse(floor)


@entry(
    "loss",
    source="Wang et al., arXiv 1908.06112",
    key="wang2019symmetric",
    search={"alpha": Range(0.01, 10, log=True), "beta": Range(0.1, 10, log=True)},
)
def symmetric_cross_entropy(*, alpha: float = 0.1, beta: float = 1.0, floor: float = 1e-4) -> Term:
    """Symmetric cross entropy, meant for noisy labels.

        α (L − z_y) + β Σ q_j (−ln max(t_j, ε))

    The same function as MIX-ENT. Gradient for hard labels: (α + β A p)(q_j − 1[j=y]), A = −ln ε. Not
    proper for β ≠ 0. Soft targets: its own formula. Cost: as MIX-ENT.

    Args:
        alpha, beta: the defaults are the paper's for CIFAR-10.
        floor: ε in (0, 1]; 1e-4 in the official code.

    Source: Wang et al., arXiv 1908.06112.

    >>> import torch, infoloss as il
    >>> a, b = il.symmetric_cross_entropy(), il.mix_ent(w1=0.1, w2=1.0, floor=1e-4)
    >>> z, y = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([2])
    >>> bool(a(z, y) == b(z, y))
    True
    """
    return alpha * CE + beta * _reverse(floor)


@entry(
    "loss",
    source="Hui, Belkin and Wright, arXiv 2302.03952",
    key="hui2023squentropy",
    search={"alpha": Range(0.1, 10, log=True)},
)
def squentropy(*, alpha: float = 1.0, centre: float = 0.0) -> Term:
    """Squentropy: cross entropy plus the mean square of the other classes' logits.

        L − z_y + α/(C − 1) Σ_{j≠y} (z_j − c)²

    On raw logits: it is not shift invariant and pins the logits' free offset. Gradient:
    q_j − 1[j=y] + 1[j≠y] 2α(z_j − c)/(C − 1). Not proper for α ≠ 0. Soft targets: expected. Cost: one
    pass; Σe^u, Σz², Σz, z_y.

    Args:
        alpha: 1 in the paper; it acts as a hyper-parameter.
        centre: c, where the other logits are pulled to; −1 in a variant.

    Source: Hui, Belkin and Wright, arXiv 2302.03952.

    >>> import torch, infoloss as il
    >>> z = torch.tensor([[0.0, 1.0, -1.0]])
    >>> il.squentropy()(z, torch.tensor([0])) - il.cross_entropy()(z, torch.tensor([0]))
    tensor(1.0000)
    """
    others = C - 1
    square_sum = S2 - Z_Y2
    if centre != 0:
        square_sum = square_sum - 2 * centre * (S1 - Z_Y) + centre**2 * others
    return CE + alpha * square_sum / maximum(others, 1)


def _square_link(z: Tensor, *, k: float | None, M: float | None) -> Tensor:
    """ln η, η_j = z_j / (kM − (k − 1)z_j): the p(y|x) of which z is the minimiser, clipped and normalised."""
    masked = z == -torch.inf
    classes = (~masked).sum(-1, keepdim=True)
    many = (classes >= 1000).to(z.dtype)
    scale = 1 + 14 * many if k is None else k
    goal = 1 + 14 * (classes > 42).to(z.dtype) + 15 * many if M is None else M
    z = torch.minimum(z.masked_fill(masked, 0), torch.as_tensor(goal, dtype=z.dtype, device=z.device))
    eta = (z / (scale * goal - (scale - 1) * z)).clamp(min=1e-6)
    total = eta.masked_fill(masked, 0).sum(-1, keepdim=True)
    return (torch.log(eta) - torch.log(total)).masked_fill(masked, -torch.inf)


@entry(
    "loss",
    source="Hui and Belkin, arXiv 2006.07322",
    key="hui2020evaluation",
    link=_square_link,
    search={"k": Range(0.5, 20, log=True), "M": Range(1, 30, log=True)},
)
def rescaled_square(*, k: float | None = None, M: float | None = None) -> Term:
    """Rescaled square loss.

        [k (z_y − M)² + Σ_{j≠y} z_j²] / C

    The minimiser is z_j = kMη/(kη + 1 − η) with η = p(j|x), so ``probabilities`` are
    η_j = z_j/(kM − (k − 1)z_j), clipped to [1e-6, 1] and normalised, not a softmax. Gradient:
    2k(z_y − M)/C at the label, 2z_j/C elsewhere. Soft targets: expected. Cost: one pass; Σz², z_y.

    Args:
        k, M: by the number of classes unless given: k = M = 1 up to 42; k = 1, M = 15 below 1000;
            k = 15, M = 30 from 1000.

    Source: Hui and Belkin, arXiv 2006.07322.

    >>> import torch, infoloss as il
    >>> il.rescaled_square()(torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([0]))
    tensor(0.0833)
    """
    many = step(C - 1000)
    scale = 1 + 14 * many if k is None else _number(k, "k", 0, math.inf, open_low=True)
    goal = 1 + 14 * step(C - 43) + 15 * many if M is None else _number(M, "M", 0, math.inf, open_low=True)
    return (scale * (Z_Y2 - 2 * goal * Z_Y + goal**2) + S2 - Z_Y2) / C


@entry("loss", source="Ren et al., arXiv 2007.10740", key="ren2020balanced", binds=("counts",))
def balanced_softmax(*, counts: Any = None) -> Term:
    """Balanced softmax: cross entropy on logits shifted by the logarithm of the class counts.

        ln Σ n_j e^z_j − z_y − ln n_y

    Decide by argmax z (as if classes were balanced); probabilities for the training distribution are
    softmax(z + ln n). A class with count 0 is masked. Gradient: softmax(z + ln n)_j − 1[j=y]. Proper for
    softmax(z + ln n). Soft targets: expected. Cost: as cross entropy.

    Args:
        counts: (C,) examples of each class in the training data; bound by a study if not given.

    Source: Ren et al., arXiv 2007.10740; in incremental learning, Jodelet et al., arXiv 2103.12532.

    >>> import torch, infoloss as il
    >>> il.balanced_softmax(counts=[3, 1])(torch.zeros(1, 2), torch.tensor([1]))
    tensor(1.3863)
    """
    return CE.shifted(counts, log=True)


@entry("loss", source="Qin, Kim and Gedeon, arXiv 1911.10688", key="qin2019rethinking", binds=("prior",))
def pc_softmax(*, prior: Any = None) -> Term:
    """Probability-corrected softmax: its negative is a lower bound of pointwise mutual information.

        −ln [e^z_y / Σ π_j e^z_j]

    Balanced softmax plus the constant ln π_y, so the same gradient; it may be negative. Decide by argmax z;
    probabilities are softmax(z + ln π). Proper for these. Soft targets: expected. Cost: one more pass
    than cross entropy, for the label's unshifted logit.

    Args:
        prior: (C,) label proportions of the training data; bound by a study if not given.

    Source: Qin, Kim and Gedeon, arXiv 1911.10688.

    >>> import torch, infoloss as il
    >>> il.pc_softmax(prior=[0.75, 0.25])(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    tensor(-0.6426)
    """
    return L.shifted(prior, log=True) - Z_Y


@entry(
    "loss",
    source="Menon et al., arXiv 2007.07314",
    key="menon2020longtail",
    binds=("prior",),
    search={"tau": Range(0.25, 4, log=True)},
)
def logit_adjusted(*, prior: Any = None, tau: float = 1.0) -> Term:
    """Logit-adjusted cross entropy for long-tailed data.

        CE(z + τ ln π, y)

    Balanced softmax for τ = 1. Decide by argmax z; probabilities are softmax(z + τ ln π). Gradient:
    softmax(z + τ ln π)_j − 1[j=y]. Proper for these. Soft targets: expected. Cost: as cross entropy.

    Args:
        prior: (C,) label proportions of the training data; bound by a study if not given.
        tau: strength of the adjustment.

    Source: Menon et al., arXiv 2007.07314.

    >>> import torch, infoloss as il
    >>> il.logit_adjusted(prior=[0.75, 0.25])(torch.zeros(1, 2), torch.tensor([1]))
    tensor(1.3863)
    """
    return CE.shifted(prior, log=True, scale=_number(tau, "tau", 0, math.inf))


@entry("loss", source="Lin et al., arXiv 1708.02002", key="lin2017focal", search={"gamma": Range(0.25, 5)})
def focal(*, gamma: float = 2.0) -> Term:
    """Focal loss: cross entropy that fades for examples already right.

        −(1 − p)^γ ln p

    The gradient runs through (1 − p)^γ too: ℓ'(p) = γ(1 − p)^(γ−1) ln p − (1 − p)^γ/p. Not proper for
    γ > 0 (under-confident). Soft targets: none. Cost: as cross entropy.

    Args:
        gamma: γ ≥ 0; 0 is cross entropy.

    Source: Lin et al., arXiv 1708.02002.

    >>> import torch, infoloss as il
    >>> il.focal()(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.1733)
    """
    if isinstance(gamma, float):
        _number(gamma, "gamma", 0, math.inf)
    return maximum(MISS, SMALLEST_MISS) ** gamma * CE


@entry("loss", source="Mukhoti et al., arXiv 2002.09437", key="mukhoti2020calibrating")
def focal_flsd() -> Term:
    """Focal loss with a sample-dependent exponent, FLSD-53.

        −(1 − p)^γ ln p, γ = 5 where p < 0.2, else 3

    It jumps at p = 0.2, by design of its authors; the gradient is that of the branch. Not proper. Soft
    targets: none. Cost: as cross entropy.

    Source: Mukhoti et al., arXiv 2002.09437.

    >>> import torch, infoloss as il
    >>> il.focal_flsd()(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.0866)
    """
    confident = step(exp(LOG_P) - 0.2)
    return (confident * MISS**3 + (1 - confident) * MISS**5) * CE


@entry(
    "loss", source="Leng et al., arXiv 2204.12511", key="leng2022polyloss", search={"epsilon": Range(-1, 8)}
)
def poly1(*, epsilon: float = 2.0) -> Term:
    """Poly-1: cross entropy with more weight on the first term of its series in 1 − p.

        −ln p + ε (1 − p)

    ℓ'(p) = −1/p − ε. Not proper for ε ≠ 0. Soft targets: expected. Cost: one pass; Σe^u, z_y, e^u_y.

    Args:
        epsilon: ε ≥ −1; 2 in the paper for ImageNet.

    Source: Leng et al., arXiv 2204.12511.

    >>> import torch, infoloss as il
    >>> il.poly1()(torch.zeros(1, 2), torch.tensor([0]))
    tensor(1.6931)
    """
    return CE + epsilon * (1 - P_Y)


@entry("loss", source="Feng et al., IJCAI 2020", key="feng2020taylor")
def taylor(*, order: int = 2) -> Term:
    """Taylor cross entropy: the series of −ln p in 1 − p, cut off.

        Σ_{k=1..n} (1 − p)^k / k

    Order 1 is half the mean absolute error, order ∞ cross entropy. ℓ'(p) = −Σ_{k<n} (1 − p)^k. Not proper for
    finite n. Soft targets: expected for order 1, else none. Cost: as cross entropy.

    Args:
        order: n ≥ 1.

    Source: Feng et al., "Can cross entropy loss be robust to label noise?", IJCAI 2020.

    >>> import torch, infoloss as il
    >>> il.taylor(order=2)(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.6250)
    """
    _number(order, "order", 1, 1000)
    series: Term = 1 - P_Y
    for k in range(2, order + 1):
        series = series + MISS**k / k
    return series


@entry(
    "loss",
    source="Zhang and Sabuncu, arXiv 1805.07836",
    key="zhang2018generalized",
    search={"q": Range(0.05, 1)},
)
def generalized_cross_entropy(*, q: float = 0.7) -> Term:
    """Generalised cross entropy, between cross entropy and the mean absolute error.

        (1 − p^q) / q

    The limit q → 0 is cross entropy, q = 1 half the mean absolute error. ℓ'(p) = −p^(q−1). Not proper for
    q > 0. Soft targets: none. Cost: as cross entropy.

    Args:
        q: in (0, 1].

    Source: Zhang and Sabuncu, arXiv 1805.07836.

    >>> import torch, infoloss as il
    >>> il.generalized_cross_entropy(q=1.0)(torch.zeros(1, 2), torch.tensor([0]))
    tensor(0.5000)
    """
    if isinstance(q, float):
        _number(q, "q", 0, 1, open_low=True)
    return -expm1(q * LOG_P) / q


@entry("loss", source="Ghosh, Kumar and Sastry, arXiv 1712.09482", key="ghosh2017robust")
def mae() -> Term:
    """Mean absolute error between the prediction and the one-hot label.

        Σ |q_j − 1[j=y]| = 2(1 − p)

    ℓ'(p) = −2. Robust to symmetric label noise, slow to train with many classes. Not proper: its minimiser
    is the most likely class. Soft targets: expected (Σ t_c 2(1 − q_c)). Cost: one pass; Σe^u, e^u_y.

    Source: Ghosh, Kumar and Sastry, arXiv 1712.09482.

    >>> import torch, infoloss as il
    >>> il.mae()(torch.zeros(1, 4), torch.tensor([0]))
    tensor(1.5000)
    """
    return 2 * (1 - P_Y)


@entry(
    "loss",
    source="Englesson and Azizpour, arXiv 2105.04522",
    key="englesson2021generalized",
    search={"weight": Range(0.05, 0.95)},
)
def jensen_shannon(*, weight: float = 0.5) -> Term:
    """Jensen–Shannon divergence between label and prediction, scaled to be robust to noisy labels.

        [H(π e_y + (1 − π) q) − (1 − π) H(q)] / (−(1 − π) ln(1 − π))

    For hard labels a function of p alone: with m = π + (1 − π)p the numerator is
    −(1 − π) ln(1 − π) (1 − p) − m ln m + (1 − π) p ln p. Cross entropy in the limit π → 0, the mean absolute
    error (halved) for π → 1. Not proper. Soft targets: none. Cost: as cross entropy.

    Args:
        weight: π in (0, 1), the weight of the label.

    Source: Englesson and Azizpour, arXiv 2105.04522.

    >>> import torch, infoloss as il
    >>> il.jensen_shannon()(torch.tensor([[50.0, 0.0]]), torch.tensor([1]))
    tensor(2.)
    """
    pi = _number(weight, "weight", 0, 1, open_low=True)
    if pi == 1:
        raise ValueError("weight must be below 1, got 1.0")
    rest = 1 - pi
    scale = -rest * math.log(rest)
    mixed = 1 - rest * MISS  # m, close to 1 for a confident row
    log_mixed = log(mixed)
    return MISS + (rest * exp(LOG_P) * LOG_P - mixed * log_mixed) / scale


@entry("loss", source="Ma et al., arXiv 2006.13554", key="ma2020normalized")
def normalized_cross_entropy() -> Term:
    """Normalised cross entropy: the label's share of the cross entropies of all classes.

        (L − z_y) / (C·L − Σ z_j)

    In [0, 1]; 0 for a single class. Gradient: (q_j − 1[j=y] − ℓ(C q_j − 1)) / (C·L − Σz). Not proper. Soft
    targets: expected. Cost: one pass; Σe^u, Σz, z_y.

    Source: Ma et al., arXiv 2006.13554.

    >>> import torch, infoloss as il
    >>> il.normalized_cross_entropy()(torch.zeros(1, 4), torch.tensor([0]))
    tensor(0.2500)
    """
    return CE / maximum(C * L - S1, 1)  # at least 2 ln 2 for two classes and more, 0 for a single one


@entry("loss", source="Brier (1950)", key="brier1950verification")
def brier() -> Term:
    """Brier score: the squared distance between the prediction and the target.

        Σ (q_j − t_j)² = Σ q_j² − 2p + 1 for a hard label

    Gradient: 2q_j (q_j − t_j − Σ_k q_k (q_k − t_k)). Proper. Soft targets: its own formula. Cost: one pass;
    Σe^u, Σe^2u, e^u_y.

    Source: Brier (1950), Verification of forecasts expressed in terms of probability.

    >>> import torch, infoloss as il
    >>> il.brier()(torch.zeros(1, 4), torch.tensor([0]))
    tensor(0.7500)
    """
    return statistic("collision") - 2 * P_Y + statistic("target_square_sum")


@entry(
    "loss",
    source="Wei et al., arXiv 2205.09310",
    key="wei2022logitnorm",
    search={"tau": Range(0.005, 1, log=True)},
)
def logit_norm(*, tau: float = 0.04) -> Term:
    """Cross entropy on logits of constant norm.

        CE(z / (τ‖z‖), y)

    Probabilities are softmax(z/(τ‖z‖)). The loss is bounded below by ln(1 + (C − 1)e^(−√(C/(C−1))/τ)). Proper
    only as far as logits of norm 1/τ can represent p(y|x). Soft targets: expected. Cost: two passes, the
    norm first.

    Args:
        tau: τ > 0; 0.04 in the paper for CIFAR-10.

    Source: Wei et al., arXiv 2205.09310.

    >>> import torch, infoloss as il
    >>> il.logit_norm(tau=1.0)(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
    tensor(0.5981)
    """
    return CE.normalized(_number(tau, "tau", 0, math.inf, open_low=True))


@entry("loss", source="Reed et al., arXiv 1412.6596", key="reed2014bootstrap", search={"beta": Range(0.6, 1)})
def soft_bootstrap(*, beta: float = 0.95) -> Term:
    """Soft bootstrapping: the target is mixed with the model's own prediction.

        β (L − z_y) + (1 − β) H(q)

    MIN-ENT with w1 = β, w2 = 1 − β; the gradient runs through the prediction in the target too, as in the
    paper's formula. Not proper for β < 1. Soft targets: expected. Cost: as MIN-ENT.

    Args:
        beta: β in [0, 1].

    Source: Reed et al., arXiv 1412.6596, eq. 6.

    >>> import torch, infoloss as il
    >>> il.soft_bootstrap(beta=0.5)(torch.zeros(1, 4), torch.tensor([0]))
    tensor(1.3863)
    """
    if isinstance(beta, float):
        _number(beta, "beta", 0, 1)
    return beta * CE + (1 - beta) * H


@entry("regulariser", source="Grandvalet and Bengio (2004)", key="grandvalet2004entropy")
def entropy() -> Term:
    """Shannon entropy of the prediction; added, it makes predictions confident.

        H(q) = L − Σ q_j z_j

    In [0, ln C]. Gradient: −q_j (ln q_j + H). Does not read the target. Cost: one pass; Σe^u, Σue^u.

    Source: Grandvalet and Bengio (2004).

    >>> import torch, infoloss as il
    >>> il.entropy()(torch.zeros(1, 4))
    tensor(1.3863)
    """
    return H


@entry(
    "regulariser",
    source="Pereyra et al., arXiv 1701.06548",
    key="pereyra2017regularizing",
    search={"beta": Range(0.01, 1, log=True)},
)
def confidence_penalty(*, beta: float = 0.1) -> Term:
    """Confidence penalty: added, it keeps predictions uncertain.

        −β H(q)

    Gradient: β q_j (ln q_j + H). Does not read the target. Cost: as the entropy.

    Args:
        beta: β; 0.1 is the paper's for most tasks.

    Source: Pereyra et al., arXiv 1701.06548.

    >>> import torch, infoloss as il
    >>> il.confidence_penalty()(torch.zeros(1, 4))
    tensor(-0.1386)
    """
    return -beta * H


@entry(
    "regulariser",
    source="Chowdhery et al., arXiv 2204.02311",
    key="chowdhery2022palm",
    search={"weight": Range(1e-5, 1e-2, log=True)},
)
def z_loss(*, weight: float = 1e-4) -> Term:
    """z-loss: keeps the logarithm of the softmax's normaliser near 0.

        λ L²

    Gradient: 2λ L q_j. Not shift invariant, by design. Does not read the target. Cost: one pass; Σe^u.

    Args:
        weight: λ; 1e-4 in PaLM.

    Source: Chowdhery et al., arXiv 2204.02311, §5.

    >>> import math, torch, infoloss as il
    >>> float(il.z_loss(weight=1.0)(torch.zeros(1, 4, dtype=torch.float64))) == math.log(4) ** 2
    True
    """
    return weight * L**2


@entry(
    "regulariser",
    source="Dauphin and Cubuk (2021)",
    key="dauphin2021deconstructing",
    search={"beta": Range(1e-4, 0.1, log=True)},
)
def logit_penalty(*, beta: float = 1e-2) -> Term:
    """Logit penalty: squared L2 norm of the logits.

        β/2 Σ z_j²

    Gradient: β z_j. Not shift invariant. Does not read the target. Cost: one pass; Σz².

    Args:
        beta: β.

    Source: Dauphin and Cubuk, "Deconstructing the regularization of BatchNorm", ICLR 2021.

    >>> import torch, infoloss as il
    >>> il.logit_penalty(beta=0.1)(torch.tensor([[3.0, 4.0]]))
    tensor(1.2500)
    """
    return beta / 2 * S2


@entry(
    "regulariser",
    source="Zhou et al., arXiv 2502.15798",
    key="zhou2025maxsup",
    search={"alpha": Range(0.01, 1, log=True)},
)
def max_suppression(*, alpha: float = 0.1) -> Term:
    """Max suppression: pulls the largest logit towards the mean, whether it is the label's or not.

        α (max z_j − Σ z_j / C)

    Label smoothing with the largest logit in the label's place. Gradient: α(1[j = argmax] − 1/C), ties
    to the lowest index. Does not read the target. Cost: one pass; max z, Σz.

    Args:
        alpha: α.

    Source: Zhou et al., "MaxSup", NeurIPS 2025, arXiv 2502.15798.

    >>> import torch, infoloss as il
    >>> il.max_suppression(alpha=1.0)(torch.tensor([[3.0, 0.0, 0.0]]))
    tensor(2.)
    """
    return alpha * (statistic("max_logit") - S1 / C)
