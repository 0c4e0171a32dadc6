"""The machine that a plan is for: which devices and links it has, where a group of ranks lies on its nodes, and
which of its figures were measured.

Start with `cluster.py`: the figures; `cluster_file.py` reads and checks them.
"""
