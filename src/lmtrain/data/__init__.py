"""Text in, examples out: ``sources → documents → tokens → store → layout``.

    sources           files, folders, streams and data sets to documents: ``resolve_sources``, ``hub_source``
    tokenizer_files   a tokenizer without transformers: ``TokenizerFiles``
    tokenization      the engines and their proof: ``choose_encoder``
    store             tokens on disk: ``TokenStore``
    prepare           sources and a tokenizer to a store, once: ``prepare``
    splits, layouts   what is held out; how tokens become examples: ``Blocks``, ``Lines``,
                      ``Pairs``
    named_text        the sources that options name: ``sources_of``
    corpus            all of it from a command's options: ``prepare_corpus``
    pairs             the same for prompts and completions: ``prepare_pairs``
    nlg               data-to-text corpora: ``nlg.formats.convert``
    train_tokenizer   a tokenizer of one's own: ``train_tokenizer``

Nothing is imported here, and neither torch nor transformers below: ``lmtrain prepare`` starts loading its fast
engine before it imports numpy.
"""
