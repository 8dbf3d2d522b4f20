"""Random streams by name: methods compared at one seed meet the same batches."""

import hashlib
from enum import StrEnum


class Purpose(StrEnum):
    """What a stream is for; streams of different purposes never touch."""

    init = "init"
    data_order = "data_order"
    dropout = "dropout"
    sampling = "sampling"
    calibration = "calibration"


def stream_seed(*, seed: int, stage: str, purpose: Purpose) -> int:
    """Seed of one stream: a hash of (seed, stage, purpose), never of consumption order.

    Units: an int in [0, 2**63)
    """
    digest = hashlib.sha256(f"{seed}/{stage}/{purpose.value}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_seed(*, seed: int, prompt: int | str, sample: int = 0) -> int:
    """Seed of the stream that one answer is drawn from, whatever batch it is computed in.

    `prompt` tells prompts apart: a number or a name; `sample` counts the answers to one prompt
    Units: an int in [0, 2**63)
    """
    digest = hashlib.sha256(f"{seed}/{prompt}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
