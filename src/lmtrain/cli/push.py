"""``lmtrain push FOLDER``: the upload alone, of a model that lies complete in a folder."""

from __future__ import annotations

import sys

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.push import PushOptions
from lmtrain.config.values import user_path
from lmtrain.core.errors import ExitCode


def run(options: PushOptions) -> int:
    with heavy_imports():
        from lmtrain.engine.runs.uploading import push_command, upload_folder
        from lmtrain.models.exporting.exported_files import exported_files
        from lmtrain.models.exporting.hub_upload import Destination, HubError, check_rights, repo_name

    folder = user_path(str(options.folder))
    to = Destination(options.hub_model_id, options.hub_token, options.hub_private_repo, options.hub_revision)
    exported_files(folder, "FOLDER")
    repo_name(to.repo_id, folder)
    try:
        check_rights(to.repo_id, to.token, folder=folder, flag="FOLDER")
        done = upload_folder(folder, to)
    except HubError as error:
        reasons = "; ".join(problem.text for problem in error.problems)
        print(f"lmtrain push: upload failed: {reasons}\nto repeat it: {push_command(folder, to)}", file=sys.stderr)
        return error.exit_code
    print(done.url)
    return ExitCode.OK
