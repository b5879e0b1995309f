import pytest
import torch
from hypothesis import settings

settings.register_profile("the same each time", derandomize=True, deadline=None)
settings.load_profile("the same each time")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
