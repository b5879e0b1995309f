"""Networks that only studies need; importing a module of this package registers its models with timm."""
