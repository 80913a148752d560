"""Golden statistics of matrices, by numpy and scipy: `python tests/make_inspect.py > tests/goldens/inspect.json`.

Needs numpy and scipy. Every number is computed from its definition, in f64, on f32 values: variances and kurtosis by scipy's
moments, ranks from singular values, the Hessian as a matrix, CKA from centred kernels, codebooks by trying every cut of sorted
values that dynamic programming leaves.
"""
import json
import numpy as np
from scipy import stats


def matrices(rng):
    yield "normal", rng.normal(0, 1, (40, 24))
    heavy = rng.standard_t(2.5, (60, 16)) * 3 + 100
    yield "heavy, far from zero", heavy
    spiked = rng.normal(0, 0.2, (200, 24))
    spiked[:, 5] *= 60
    spiked[:, 17] += 9
    spiked[3, 2] = -40
    yield "outlier channels", spiked
    sparse = rng.normal(0, 1, (32, 32)) * (rng.random((32, 32)) > 0.6)
    sparse[0, 0] = 200
    yield "sparse", sparse
    yield "few values", rng.integers(-3, 4, (24, 50)) * 0.125
    yield "rank 3", rng.normal(0, 1, (50, 3)) @ rng.normal(0, 1, (3, 20))
    yield "constant", np.full((4, 6), 0.75)


def best_codebook(x, k):
    """The least sum of squares of k clusters of sorted values, over every way to cut them."""
    x = np.sort(x)
    n = len(x)
    if len(np.unique(x)) <= k:
        return 0.0
    one = np.zeros((n, n + 1))
    for i in range(n):
        for j in range(i + 1, n + 1):
            one[i, j] = ((x[i:j] - x[i:j].mean()) ** 2).sum()
    best = one[0].copy()
    best[0] = 0
    for _ in range(k - 1):
        new = np.full(n + 1, np.inf)
        new[0] = 0
        for j in range(1, n + 1):
            new[j] = min(best[i] + one[i, j] for i in range(j))
        best = new
    return best[n]


def short(x):
    """As few digits as are worth keeping: what is written is what is computed with, as f32."""
    return np.round(x, 3).astype(np.float32)


def written(x):
    return [[float(str(v)) for v in row] for row in x]


def spread(name, x):
    x = short(x)
    y = x.astype(np.float64)
    absmax, std = np.abs(y).max(), y.std()
    channels = np.abs(y).max(axis=0)
    middle = np.median(channels)
    s = np.linalg.svd(y, compute_uv=False)
    p = s / s.sum()
    p = p[p > 1e-15]
    # Of at most 128 rows, spread evenly.
    some = y if len(y) <= 128 else y[[i * len(y) // 128 for i in range(128)]]
    lost = sum(best_codebook(row, 16) for row in some)
    return {
        "name": name,
        "rows": written(x),
        "named": {
            "count": y.size,
            "not_finite": 0,
            "min": y.min(),
            "max": y.max(),
            "absmax": absmax,
            "mean": y.mean(),
            "std": std,
            "absmax_std": absmax / std if std > 0 else None,
            "kurtosis": stats.kurtosis(y.ravel(), fisher=False, bias=True) if std > 0 else None,
            "six_sigma": (np.abs(y - y.mean()) > 6 * std).mean(),
            "zeros": (y == 0).mean(),
            "near_zero": (np.abs(y) < 0.01 * absmax).mean(),
            "outlier_channels": int((channels > 10 * middle).sum()),
            "channel_ratio": channels.max() / middle,
        },
        "effective_rank": float(np.exp(-(p * np.log(p)).sum())),
        "distinct": int(len(np.unique(x))),
        "codebook_error": lost / (some**2).sum(),
    }


def gap(rng, name, out, inner, tokens, noise):
    w = rng.normal(0, 1, (out, inner))
    q = w + noise * rng.normal(0, 1, (out, inner))
    x = rng.normal(0, 1, (tokens, inner)) * np.exp(rng.normal(0, 1.5, inner))
    w, q, x = short(w), short(q), short(x)
    a, b, c = (m.astype(np.float64) for m in (w, q, x))
    h = 2 * c.T @ c / tokens
    return {
        "name": name, "w": written(w), "q": written(q), "x": written(x),
        "sqnr": 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()),
        "nmse": ((a - b) ** 2).sum() / (a**2).sum(),
        "cosine": (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b),
        "hessian": np.trace((a - b) @ h @ (a - b).T),
        "whole": np.trace(a @ h @ a.T),
    }


def cka(rng, name, tokens, p, q, mix):
    x = rng.normal(0, 1, (tokens, p)) * np.exp(rng.normal(0, 1, p)) + 3
    y = mix * x @ rng.normal(0, 1, (p, q)) + rng.normal(0, 1, (tokens, q)) - 1
    x, y = short(x), short(y)
    centre = np.eye(tokens) - 1 / tokens
    k, l = (centre @ (m.astype(np.float64) @ m.T.astype(np.float64)) @ centre for m in (x, y))
    value = np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))
    return {"name": name, "x": written(x), "y": written(y), "cka": value}


def main():
    rng = np.random.default_rng(2026)
    print(json.dumps({
        "spreads": [spread(name, x) for name, x in matrices(rng)],
        "gaps": [gap(rng, "slight", 12, 20, 30, 0.01), gap(rng, "coarse", 9, 16, 10, 0.7)],
        "ckas": [
            cka(rng, "alike", 40, 8, 8, 5.0), cka(rng, "more channels than tokens", 10, 24, 24, 0.3),
            cka(rng, "of other widths", 30, 6, 11, 0.1),
        ],
    }))


main()
