"""Data to text: a corpus' files in; texts for its test set and their official scores out.

tasks      what is particular to E2E, WebNLG and DART
data       the corpus' files → records → token ids
training   options of ``lmtrain sft`` from those of a task
inputs     those that leave room for a text
decoding   a text for each distinct input
texts      texts and references as files that the official scorers read
scoring    predictions and references → scores, by part of the test set
table      scores beside the published ones
run        the stages in a row, each kept in a file and made once
demo       the same on a corpus that every machine has
"""
