"""Strategy documents as engineers write them, in Markdown: read, compared with themselves, and given back.

Start with `reading.py`: a document as facts, claims, contradictions, and what was not understood. No language model:
each fact is found by a pattern of `facts.py`, each claim by one of `claims.py`.
"""
