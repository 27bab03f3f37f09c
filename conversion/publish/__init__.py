"""Publishing models and kernels on the Hub. Installed as `hf_models.conversion.publish`."""

from .kernel import push_kernel
from .model import push_model
from .zoo import publish_all

__all__ = ["publish_all", "push_kernel", "push_model"]
