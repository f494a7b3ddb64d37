"""A corpus filtered and freed of duplicates in one pass: ``run.filter_corpus``.

    rules        what a document must be, and what its bytes tell before it is parsed
    inputs       what is named, as sources
    search       texts that hold a keyword, many at once
    tasks        the input cut into stretches; json_lines, tables, documents read them
    segment      what is kept of a stretch; account counts what became of the rest
    pool         tasks done by several processes, in order; meter counts what is read, and stops it
    duplicates   what was kept before is dropped (:mod:`lmtrain.data.duplicates`)
    shards       what is kept, in spools; packing makes the files of the output of them
    mixing       several sources in their shares, once all is read
    state        how far it came, for the same command to go on
    report       what a person reads at the end

Nothing is imported here.
"""
