from __future__ import annotations

import pytest
from corpora import byte_level_bpe

from lmtrain.data.tokenizer_files import TokenizerFiles


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> TokenizerFiles:
    return TokenizerFiles.load(byte_level_bpe(tmp_path_factory.mktemp("bpe")))
