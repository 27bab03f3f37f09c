"""How much memory training takes on each GPU, before there is one: from a run without numbers."""

from .estimate import TrainingMemory, training_memory

__all__ = ["TrainingMemory", "training_memory"]
