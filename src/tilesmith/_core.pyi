"""The search engine of the symbolic space, in C++."""
