"""edge-vit: vision transformers for phones, boards and browsers, published only with proof.

The folders are in the order in which the bytes travel; ARCHITECTURE.md says what lives where and
which may import which.
"""

import os

# PyTorch reads it when it is imported. QNNPACK warns of a setting that no caller can change.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
