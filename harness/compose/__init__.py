"""From overrides to a typed cell: publishes every Config to Hydra, composes, converts, explains errors."""

from harness.callable import call_as
from harness.compose import explain
from harness.compose.cell import Cell
from harness.compose.experiment import Experiment
from harness.compose.hydra import compose, config_dir, load, options_of
from harness.compose.publish import publish

__all__ = ["Cell", "Experiment", "compose", "config_dir", "explain", "load", "options_of", "publish"]

call_as(__name__, "harness.api.planning:compose")
