"""ViT-Prisma: its sparse autoencoders are in its Git repository only, so there is no step here to time.

Its environment holds PyPI's wheel alone, and this looks whether it has them by now.
"""

import json
from importlib.util import find_spec

if __name__ == "__main__":
    found = find_spec("vit_prisma.sae") is not None
    reason = "it has an SAE now: drive it in prisma_training.py" if found else "PyPI's vit-prisma 0.1.4 has no SAE"
    print(json.dumps({"cannot": reason}))
