"""The bridge to lm-eval, the scoring engine and the offline tasks."""
