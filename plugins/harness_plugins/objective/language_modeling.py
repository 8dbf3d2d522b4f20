"""Language modeling: predict every next token."""

import numpy as np

from harness import Example, Method, Objective, hookimpl


class LanguageModeling(Objective):
    """Next-token prediction on the whole window.

    With an encoder, the first half of the window is read and the second is predicted.
    """

    name = "language_modeling"

    def example(
        self,
        window_T: np.ndarray,
        rng: np.random.Generator,
        *,
        encoder: bool,
        sentinels: np.ndarray,
    ) -> Example:
        if encoder:
            half = len(window_T) // 2
            source_S, window_T = window_T[:half], window_T[half:]
            return Example(inputs_T=window_T[:-1], labels_T=window_T[1:], source_S=source_S)
        return Example(inputs_T=window_T[:-1], labels_T=window_T[1:])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LanguageModeling]
