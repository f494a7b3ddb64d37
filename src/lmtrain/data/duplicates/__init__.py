"""Texts that are the same, or nearly.

    marks      what a text is known by: a digest of its letters, the set of its shingles, the keys of its bands
    shingles   runs of five words as numbers, and the Jaccard similarity of two such sets
    bands      MinHash signatures cut into bands (locality-sensitive hashing)
    table      a hash table of numbers in a few bytes an entry
    kept       the texts kept so far: which of them a new text repeats

Nothing here knows files or records.
"""
