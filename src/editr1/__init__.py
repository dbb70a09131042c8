"""editr1: online reinforcement learning for instruction-based image editors (Edit-R1, arXiv 2510.16888)."""

__version__ = "0.1.0"
