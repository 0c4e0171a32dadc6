"""The search: which legal layout of a model and a batch is best on a cluster by time, memory or cost, and whether that
holds with fewer GPUs and over all that the cluster's file leaves open.

Start with `branch_and_bound.py`: the search; `space.py` lists its candidates, `candidate.py` times and ranks them,
`outcome.py` has everything that one search found.
"""
