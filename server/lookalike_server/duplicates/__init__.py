"""Near-duplicates of a collection: candidates | groups | representative, and the jobs that run them."""

from .representative import Policy
from .search import Duplicates, Group, Member, find_duplicates

__all__ = ["Duplicates", "Group", "Member", "Policy", "find_duplicates"]
