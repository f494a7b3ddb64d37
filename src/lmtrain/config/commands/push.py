"""The options of ``lmtrain push``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option
from lmtrain.core.errors import Problems


@dataclass
class PushOptions:
    """``lmtrain push FOLDER``: upload the model that a run or an export left there, and nothing else of the folder."""

    title: ClassVar[str] = "Upload"

    folder: str | None = option(
        None, "The folder of a finished run, or of lmtrain export.", metavar="FOLDER", positional=True
    )
    hub_model_id: str | None = option(
        None, "The repository. It is made where there is none.", metavar="ORG/NAME", aliases=("repo_id",),
        shown_default="the folder's name",
    )  # fmt: skip
    hub_token: str | None = option(
        None, "Access token of the hub.", metavar="TOKEN", aliases=("token",), secret=True,
        shown_default="that of hf auth login, or HF_TOKEN",
    )  # fmt: skip
    hub_private_repo: bool | None = option(
        None,
        "Make the repository private, where it has to be made.",
        aliases=("private",),
        shown_default="as the hub has it",
    )
    hub_revision: str | None = option(
        None, "The branch to upload to. It is made where there is none.", metavar="BRANCH", aliases=("revision",),
        shown_default="main",
    )  # fmt: skip

    def check(self, problems: Problems) -> None:
        """Add what is missing."""
        if not self.folder:
            problems.add("name what to upload: lmtrain push runs/book --hub_model_id me/book", flag="FOLDER")
