"""Rows of hypotheses: each goes on from its parent's past, no two share a row, and little is moved."""

from __future__ import annotations

import random

from lmtrain.generate.beam_rows import BeamRows


def test_children_stay_where_their_parents_were():
    rows = BeamRows([7, 7, 7, 7, 7])
    places, move = rows.place([7] * 5, [0, 0, 2, 2, 2])
    assert places == [0, 1, 2, 3, 4]
    assert list(zip(move.sources, move.places, move.whole, strict=True)) == [
        (0, 1, False), (2, 3, False), (2, 4, False),
    ]  # fmt: skip


def test_nothing_moves_when_nothing_changes_and_the_last_fill_the_gaps():
    rows = BeamRows([0, 0, 1, 1])
    assert rows.place([0, 0, 1, 1], [1, 0, 2, 3])[1].places == []
    places, move = rows.place([0, 1, 1], [1, 2, 3])  # the row 0 is free, the row 3 is beyond what is needed
    assert places == [1, 2, 0]
    assert (move.rows, move.sources, move.places, move.whole) == (3, [3], [0], [True])
    assert rows.contexts == [1, 0, 1, 1]
    places, move = rows.place([0, 1, 1, 1], [1, 2, 2, 0])  # the row 3 still holds the context 1
    assert (places, move.whole) == ([1, 2, 3, 0], [False])


def test_any_history_keeps_each_past():
    """Stores of letters in the place of keys and values, against lists that are copied whole."""
    chance = random.Random(3)
    for _ in range(200):
        contexts = [number for number in range(4) for _ in range(3)]
        rows, pasts = BeamRows(contexts), [f"{context}:" for context in contexts]
        held_context, held = list(contexts), list(pasts)
        where = list(range(len(contexts)))
        for step in range(8):
            chosen = []
            for number in range(4):
                alive = [i for i, context in enumerate(contexts) if context == number]
                if alive and (step < 3 or chance.random() < 0.8):
                    chosen += [chance.choice(alive) for _ in range(chance.randint(1, 3))]
            pasts, contexts = [pasts[i] + str(step) for i in chosen], [contexts[i] for i in chosen]
            where, move = rows.place(contexts, [where[i] for i in chosen])
            assert sorted(where) == list(range(move.rows))
            room = max(move.rows, len(held))
            held, held_context = held + [""] * (room - len(held)), held_context + [-1] * (room - len(held_context))
            taken = [(held[source], held_context[source]) for source in move.sources]
            for (past, context), place, whole in zip(taken, move.places, move.whole, strict=True):
                assert whole == (held_context[place] != context)
                held[place], held_context[place] = past, context
            for row in range(move.rows):
                held[row] += str(step)
            assert [held[row] for row in where] == pasts
            assert [held_context[row] for row in where] == contexts
