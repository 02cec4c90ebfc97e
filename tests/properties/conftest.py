"""One hypothesis profile: the same examples on every run, few of them, no clock, nothing kept on disk."""

from hypothesis import settings

settings.register_profile("project", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("project")
