"""The flags of commands that read Penn Treebank, and the question before a download."""

import sys
from typing import Any

from absl import flags

from experiments.ptb import data
from experiments.ptb.run import is_penn_treebank

DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt. Default: the folder that "
    "ARTBP_DATA_DIR names, else an earlier download. Checked by hash in every case.",
)
DOWNLOAD = flags.DEFINE_bool(
    "download", False, "Download Penn Treebank if no folder is named; without it, a terminal asks."
)
FLAGS = (DATA_DIR, DOWNLOAD)

NEEDS = f"""\
The text: the three files of Penn Treebank, in a folder that --data_dir or {data.DATA_DIR_VARIABLE}
names, or by --download. Without them: --set data.source=generated, which is made-up text.
--help lists the fields for --set."""


def data_dir(config: Any) -> str | None:
    """Returns --data_dir, after a download where one is needed and the user agrees.

    The user agrees by --download or, on a terminal only, by the answer to a question. Otherwise
    nothing is downloaded, and reading the text raises DataError.
    """
    needed = is_penn_treebank(config) and not data.named_folder(DATA_DIR.value)
    if needed and not data.is_downloaded() and (DOWNLOAD.value or _user_agrees()):
        data.download()
    return DATA_DIR.value


def _user_agrees() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    question = (
        "Penn Treebank is licensed by the Linguistic Data Consortium. Download its three files "
        f"(6 MB) from {data.MIRROR} to {data.cache_folder()}? [y/N] "
    )
    return input(question).strip().lower() in ("y", "yes")
