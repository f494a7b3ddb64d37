"""Object storage and the web, through fsspec: where text is read from, and where token stores lie.

    places      addresses to file systems; which extra a scheme needs
    failures    what the libraries raise, in one line for the user, without keys
    retrying    what may pass is tried again, for a bounded time
    cache       chunks of remote files on the disk, least recently used first out, within a bound
    tokens      ``tokens.bin`` read by chunks, as if it were an array
    store       a token store that lies elsewhere
    upload      a finished store to an address, its manifest last

Nothing here is imported before an address is named; fsspec comes with torch.
"""
