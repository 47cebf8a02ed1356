"""torchvision's ImageFolder over a directory, once for each line read: the peer of index.py.

    python scripts/bench/index_peer.py DIRECTORY
"""

import sys

import common
from torchvision.datasets import ImageFolder

common.peer_serve(lambda: {"files": len(ImageFolder(sys.argv[1]))})
