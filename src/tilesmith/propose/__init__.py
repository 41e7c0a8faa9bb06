"""What to try next: a table of source rewrites, chosen by what limits a kernel, and the beam that keeps the best."""

from tilesmith.propose.joined import JoinedProposer
from tilesmith.propose.proposer import RewriteProposer

__all__ = ["JoinedProposer", "RewriteProposer"]
