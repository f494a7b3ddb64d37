"""Data-to-text: the corpora's own files in, one record format out, and texts for their scorers.

    e2e, webnlg, dart   what each corpus looks like: ``read``
    records             the format between them: ``Record``, ``read_records``, ``write_records``, ``grouped``
    formats             the corpora by name: ``FORMATS``
    encoding            records to token ids: ``encode_records``
    text                predictions and references as the scorers read them
    miniature           a corpus made of this interpreter's own documentation, without a download

The formats are those of the data-to-text example of LoRA (github.com/microsoft/LoRA, examples/NLG), to the byte.
"""
