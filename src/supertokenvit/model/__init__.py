"""The network. Imports torch and timm, nothing else of this package."""
