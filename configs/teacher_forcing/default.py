"""Teacher forcing against free runs on Mackey-Glass, under TBPTT and ARTBP.

    python -m experiments.teacher_forcing --config configs/teacher_forcing/default.py \
        --workdir results/teacher_forcing
"""

from experiments.teacher_forcing.config import default_config

get_config = default_config
