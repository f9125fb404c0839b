"""Who counts: the ranks of a job (``members``), and what is known of each (``rank``)."""

from paramserver.membership.members import Death, Membership

__all__ = ["Death", "Membership"]
