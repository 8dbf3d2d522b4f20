"""Length-controlled win rate: what a judge would say of answers of equal length."""

from __future__ import annotations

import numpy as np

STEPS, RIDGE = 100, 1e-8


def length_controlled(wins_R: np.ndarray, longer_R: np.ndarray) -> tuple[float, float]:
    """Win rate and its standard error with the effect of length taken out.

    Preferences are fitted by logit P(win) = theta + phi tanh(d / std(d)), d the difference of lengths, and
    the length-controlled win rate is sigmoid(theta), the fit at d = 0. Its error is that of a sandwich.

    Paper: Dubois et al. 2024, arXiv:2404.04475, section 3
    Shapes: wins (0 to 1, draws one half) and differences of lengths of R duels
    Differs: no term for how hard an instruction is, which needs the answers of many models, and no penalty;
        AlpacaEval's, L1 of a strength by cross-validation, moves the rate by 2e-4 on planted preferences
    """
    from scipy.special import expit  # 0.3 s to load, and a plan needs none of it

    spread = longer_R.std(ddof=1) if len(longer_R) > 1 else 0.0
    length_R = np.tanh(longer_R / spread) if spread > 0 else np.zeros(len(longer_R))
    design_RP = np.stack([np.ones(len(wins_R)), length_R], axis=1)
    beta_P = np.zeros(2)
    for _ in range(STEPS):
        p_R = expit(design_RP @ beta_P)
        information_PP = (design_RP * (p_R * (1 - p_R))[:, None]).T @ design_RP + RIDGE * np.eye(2)
        step_P = np.linalg.solve(information_PP, design_RP.T @ (wins_R - p_R) - RIDGE * beta_P)
        beta_P = np.clip(beta_P + np.clip(step_P, -2, 2), -30, 30)
        if np.abs(step_P).max() < 1e-12:
            break
    p_R = expit(design_RP @ beta_P)
    bread_PP = np.linalg.inv((design_RP * (p_R * (1 - p_R))[:, None]).T @ design_RP + RIDGE * np.eye(2))
    scores_RP = design_RP * (wins_R - p_R)[:, None]
    influence_R = scores_RP @ bread_PP[0]  # summed squares, so that rounding makes no variance negative
    rate = float(expit(beta_P[0]))
    return rate, float(rate * (1 - rate) * np.linalg.norm(influence_R))
