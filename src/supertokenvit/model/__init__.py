"""The network and its family. This room imports torch and timm, and nothing else of the package.

In the order in which to read it:

| file | what is in it |
|---|---|
| network.py | the whole data flow: stem, windows, local, global and class layers, head |
| stem.py | image to patch tokens |
| windows.py | patch tokens to windows, each with its Super token |
| learned_grid.py | learned vectors for the places of a grid, at any size |
| layers.py | the local, global and class layer |
| attention.py | attention within a window, of a Super token alone, and of the class token |
| mixer.py | how Super tokens of different windows talk |
| architecture.py | the options that decide which weights there are |
| pyramid.py | maps at strides 4 to 32, for segmentation and detection |
| family.py | the named variants, registered with timm |
| timm_contract.py | what timm asks of a model besides its forward pass |
| folding.py, summary.py | scales folded into weights for inference; sizes and costs of the variants |
"""

from . import family  # noqa: F401  registers the variants, whichever file is asked for first
