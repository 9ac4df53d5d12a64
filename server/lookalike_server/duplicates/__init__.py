"""Near-duplicates of a collection: the stages of a search, the shards it keeps, and the jobs that run it."""

from .in_memory import Duplicates, Group, Member, find_duplicates
from .representative import Policy
from .search import Progress, Search
from .stages import Asked

__all__ = ["Asked", "Duplicates", "Group", "Member", "Policy", "Progress", "Search", "find_duplicates"]
