"""Train the embedded VAE, editor and judge from a seed; resumable. The same as `editr1 toy build`.

Usage: python scripts/build_toy.py OUT [SEED]
"""

from __future__ import annotations

import sys
from pathlib import Path

from editr1.toy_models.recipe import build_all

if __name__ == "__main__":
    build_all(Path(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0, level="small")
