"""A DeepSpeed-backed trainer for sign-language recognisers, and for any `nn.Module`."""

__version__ = "0.1.0"
