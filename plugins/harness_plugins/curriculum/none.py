"""No curriculum: samples come in the mixture's random order."""

import numpy as np

from harness import Curriculum, Method, SampleReader, hookimpl


class NoCurriculum(Curriculum):
    """The order that the mixture drew."""

    name = "none"

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        return order_R


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [NoCurriculum]
