"""The chaos suite starts programs by hand, as the tests of the command line do."""

import sys
from pathlib import Path

E2E = Path(__file__).parent.parent / "e2e"
sys.path.append(str(E2E))
