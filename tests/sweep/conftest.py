"""Makes the toy stages importable, in children of the fork server too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
