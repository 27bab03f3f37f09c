"""Stand-in for transformers' generation tests: nothing here generates."""


class GenerationTesterMixin:
    pass
