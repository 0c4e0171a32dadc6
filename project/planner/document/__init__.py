"""The strategy document: everything that follows from a model, a layout and a cluster, each number with its source,
and the claims of somebody's document checked against it.

Start with `derived.py`: the facts; `quantities.py` sums them up; `plan.py` holds the whole, as `plan.json` has it.
"""
