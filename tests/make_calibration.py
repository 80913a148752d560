#!/usr/bin/env python3
"""Makes tests/goldens/calibration.json: Brier scores and calibration errors of log-likelihoods, for `tests/written.rs`.

    pip install numpy scikit-learn lm_eval
    python tests/make_calibration.py

The Brier score is that of lm-evaluation-harness and of scikit-learn; the calibration error is written here anew, bin by
bin, and its standard error is that of 4000 draws of the questions with replacement.
"""
import json
from pathlib import Path

import numpy as np
from lm_eval.api.metrics import brier_score
from sklearn.metrics import brier_score_loss

OUT = Path(__file__).resolve().parent / "goldens" / "calibration.json"


def ece(confidence, right, bins=10):
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def case(rng, count, endings, sharpness, skill):
    gold = rng.integers(endings, size=count)
    lls = -40 + sharpness * rng.normal(size=(count, endings))
    lls[np.arange(count), gold] += skill
    lls = np.round(lls, 4)
    p = np.exp(lls - lls.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    brier = brier_score(list(zip(gold.tolist(), p.tolist())))
    assert np.isclose(brier, brier_score_loss(np.eye(endings)[gold], p, scale_by_half=False))
    confidence, right = p.max(axis=1), (p.argmax(axis=1) == gold).astype(float)
    draws = rng.integers(count, size=(4000, count))
    spread = np.std([ece(confidence[d], right[d]) for d in draws], ddof=1)
    return {
        "log_probs": lls.tolist(), "gold": gold.tolist(), "brier": float(brier), "ece": float(ece(confidence, right)),
        "ece_stderr": float(spread),
    }


if __name__ == "__main__":
    rng = np.random.default_rng(7)
    # Far too sure; far too unsure; two endings; a few questions, in few bins.
    cases = [case(rng, 300, 4, 6.0, 1.0), case(rng, 300, 4, 0.2, 0.4), case(rng, 200, 2, 3.0, 0.5), case(rng, 5, 3, 1.0, 1.0)]
    OUT.write_text(json.dumps(cases) + "\n")
    for c in cases:
        print({k: v for k, v in c.items() if not isinstance(v, list)})
