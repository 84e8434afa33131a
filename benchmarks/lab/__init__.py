"""The lab: the sites of a run as processes of this machine, each with a CPU quota and, where asked, a network of its own.

How it is built and what it measures: docs/measuring.md.
"""  # noqa: E501


class Skipped(Exception):
    """This machine cannot hold the lab: says what is missing."""
