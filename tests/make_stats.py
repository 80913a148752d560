"""Golden statistics of paired runs, by scipy and statsmodels: `python tests/make_stats.py > tests/goldens/stats.json`.

Needs numpy, scipy and statsmodels. Seeds are fixed; values of a bootstrap are those of scipy's own draws, so they are held
loosely, but for one whose draws are made here as the program makes them, with Python's `random`.
"""
import json
import random
import numpy as np
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower

SCALES = {"plain": (lambda r: r, lambda r: 1.0), "exp": (np.exp, np.exp), "sqrt": (np.sqrt, lambda r: 0.5 / np.sqrt(r))}


def cases():
    rng = np.random.default_rng(2026)
    # Right or wrong, 400 questions of 40 articles whose questions are alike.
    easy = np.repeat(rng.normal(0.6, 0.9, 40), 10)
    latent = easy + rng.normal(0, 0.6, 400)
    a = (latent > 0).astype(float)
    b = (latent - 0.15 + rng.normal(0, 0.35, 400) > 0).astype(float)
    yield "questions", "plain", a, np.ones(400), b, np.ones(400), np.repeat(np.arange(40), 10), 0.25
    # Windows of a text, of unequal length.
    w = rng.integers(40, 128, 60).astype(float)
    base = rng.normal(2.2, 0.3, 60)
    yield "windows", "exp", base * w, w, (base + rng.normal(0.03, 0.05, 60)) * w, w, np.arange(60), None
    # Squares, few items.
    x = rng.gamma(2.0, 0.02, 12)
    yield "squares", "sqrt", x, np.ones(12), x * rng.uniform(0.9, 1.4, 12), np.ones(12), np.arange(12), None


def case(name, scale, xa, wa, xb, wb, clusters, chance):
    f, slope = SCALES[scale]
    ma, mb = xa.sum() / wa.sum(), xb.sum() / wb.sum()
    influence = slope(mb) * (xb - mb * wb) / wb.sum() - slope(ma) * (xa - ma * wa) / wa.sum()
    # An intercept alone, clustered: statsmodels' own G / (G - 1).
    n = len(xa)
    fit = OLS(influence * n + (f(mb) - f(ma)), np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    out = {
        "name": name, "scale": scale, "chance": chance,
        "a": np.stack([xa, wa], 1).tolist(), "b": np.stack([xb, wb], 1).tolist(), "clusters": clusters.tolist(),
        "delta": f(mb) - f(ma), "stderr": float(fit.bse[0]),
    }
    plain = (xb - mb * wb) / wb.sum() - (xa - ma * wa) / wa.sum()
    # Student's t, with as many degrees of freedom as clusters but one.
    fit = OLS(plain * n + (mb - ma), np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    out["p_mean"] = float(fit.pvalues[0])
    # Solved for the effect: what this many items find four times in five.
    sd = out["stderr"] * np.sqrt(n)
    out["detectable"] = float(NormalIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8, ratio=0, alternative="two-sided") * sd)
    if name == "questions":
        table = [[int(((xa == i) & (xb == j)).sum()) for j in (1, 0)] for i in (1, 0)]
        lost, won = table[0][1], table[1][0]
        out["lost"], out["won"] = lost, won
        out["mcnemar"] = float(mcnemar(table, exact=True).pvalue)
        k = min(lost, won)
        out["mid"] = float(2 * stats.binom.cdf(k, lost + won, 0.5) - stats.binom.pmf(k, lost + won, 0.5))
    # By clusters: their sums are what is drawn.
    count = clusters.max() + 1
    sums = np.stack([np.bincount(clusters, v, count) for v in (xa, wa, xb, wb)], 1)
    value = lambda i: (f(sums[i, 0].sum() / sums[i, 1].sum()), f(sums[i, 2].sum() / sums[i, 3].sum()))
    done = stats.bootstrap((np.arange(count),), lambda i: np.subtract(*value(i.astype(int))[::-1]), vectorized=False,
                           n_resamples=20000, method="percentile", rng=np.random.default_rng(1))
    out["scipy_interval"] = [float(done.confidence_interval.low), float(done.confidence_interval.high)]
    values = []
    for block in range(20):
        # The program's own draws: 100 replicates of a generator, seed 7.
        own = random.Random(7 * 1_000_003 + block)
        values += [value(np.array([int(own.random() * count) for _ in range(count)])) for _ in range(100)]
    va, vb = np.array(values).T
    out["interval"] = np.quantile(vb - va, [0.025, 0.975]).tolist()
    out["ratio_interval"] = np.quantile(vb / va, [0.025, 0.975]).tolist()
    if chance is not None:
        out["above_chance_interval"] = np.quantile((vb - chance) / (va - chance), [0.025, 0.975]).tolist()
    return out


def main():
    rng = np.random.default_rng(5)
    p = np.concatenate([rng.uniform(0, 1, 12), rng.uniform(0, 0.01, 5), [0.02, 0.02, 1.0]])
    pairs = [(0, 0), (1, 0), (3, 3), (5, 12), (40, 61), (300, 260)]
    small = [
        {"lost": b, "won": c, "exact": float(mcnemar([[0, b], [c, 0]], exact=True).pvalue) if b + c else 1.0}
        for b, c in pairs
    ]
    out = {
        "cases": [case(*c) for c in cases()],
        "holm": {"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()},
        "mcnemar": small,
        "student": [
            [t, df, float(2 * stats.t.sf(t, df))]
            for t in (0.01, 0.7, 1.96, 2.8, 6.0, 40.0) for df in (1, 2, 9, 39.5, 400, 20000)
        ],
        "student_quantiles": [
            [p, df, float(stats.t.ppf(p, df))] for p in (0.001, 0.05, 0.5, 0.95, 0.995) for df in (1, 3, 9, 59, 5000)
        ],
        "spearman": [
            {"a": a, "b": b, "r": float(stats.spearmanr(a, b).statistic)}
            for a, b in (
                ([0.3, 0.5, 0.2, 0.9, 0.7], [1.0, 2.0, 0.5, 4.0, 3.0]),
                ([0.3, 0.5, 0.5, 0.9, 0.1, 0.4], [2.0, 1.0, 1.0, 0.5, 3.0, 3.0]),
                ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]),
            )
        ],
        "quantiles": [[q, float(stats.norm.ppf(q))] for q in (0.001, 0.05, 0.5, 0.8, 0.975, 0.999)],
    }
    print(json.dumps(out))


main()
