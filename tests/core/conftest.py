from __future__ import annotations

import sys
from pathlib import Path

# The tests' own helpers (gaussian.py, pictures.py) are imported by name.
sys.path.append(str(Path(__file__).resolve().parent))
