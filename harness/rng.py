"""Random streams by name: methods compared at one seed meet the same batches."""

import hashlib
from enum import StrEnum

from harness.errors import ConfigError

MAX_SEED = 2**32 - 1
"""The largest seed: what every library takes that methods may hand it to (numpy.random.seed's own bound)."""


class Purpose(StrEnum):
    """What a stream is for; streams of different purposes never touch."""

    init = "init"
    data_order = "data_order"
    dropout = "dropout"
    sampling = "sampling"
    calibration = "calibration"


def check_seed(seed: int, where: str) -> int:
    """The seed, as it stands at the config key `where`.

    Raises: ConfigError outside [0, MAX_SEED]
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{where}={seed} must lie between 0 and {MAX_SEED}")
    return seed


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
