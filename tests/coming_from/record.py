"""Runs the programs of `docs/coming_from.md` that use other libraries, and records their results.

    python tests/coming_from/record.py NAME ... --to tests/coming_from

NAME is pytorch, lightning, ignite or keras. pytorch and lightning need torch, ignite needs torch
and pytorch-ignite, keras needs keras and tensorflow. They are not in the environment of the tests,
so the results are committed, as NAME.npz: the data, the weights before and after, and the versions.
`test_coming_from.py` compares our programs with them, and runs this script again where the
libraries are installed. Where pytorch-lightning 1.9 is installed, lightning also trains with the
attribute `truncated_bptt_steps`, and compares.
"""

import argparse
import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "coming_from.md"
ROWS, FEATURES, UNITS = 3, 2, 4
SECTIONS = {
    "pytorch": "PyTorch: detach loops",
    "lightning": "Lightning: `truncated_bptt_steps`",
    "ignite": "ignite: `create_supervised_tbptt_trainer`",
    "keras": "Keras: stateful RNNs",
    "purejaxrl": "PureJaxRL: `ScannedRNN`",
    "persistent_es": "persistent_es",
}


def blocks(title, language):
    """The code blocks of a section of the page: `py` is their code, `python` is ours."""
    section = PAGE.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def execute(code, namespace):
    exec(compile(code, str(PAGE), "exec"), namespace)


def make_data(num_steps):
    """Inputs, and targets that are a sum over the last four steps, time first."""
    xs = np.random.default_rng(0).standard_normal((num_steps, ROWS, FEATURES))
    padded = np.concatenate([np.zeros((3, ROWS)), xs.sum(-1)])
    targets = sum(padded[lag : lag + num_steps] for lag in range(4))
    return xs, targets[..., None]


def make_weights(shapes):
    rng = np.random.default_rng(1)
    return {name: rng.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()}


def as_batches(xs, targets, length, *, batch_first):
    """Four sequences as a list of pairs."""
    starts = range(0, len(xs), len(xs) // 4)
    batches = [(xs[i : i + length], targets[i : i + length]) for i in starts]
    if batch_first:
        batches = [tuple(part.swapaxes(0, 1) for part in batch) for batch in batches]
    return batches


def batches_of(name, xs, targets):
    """The batches of a section that has them, arrays or tensors."""
    return {
        "lightning": lambda: as_batches(xs, targets, 25, batch_first=True),
        "ignite": lambda: as_batches(xs, targets, 23, batch_first=False),
    }.get(name, list)()


def record_torch(name):
    """20 updates of the loop of a section, in float64."""
    import torch

    namespace = {"torch": torch, "mse_loss": torch.nn.functional.mse_loss}
    if name == "ignite":
        import ignite
        from ignite.contrib.engines import create_supervised_tbptt_trainer

        namespace["create_supervised_tbptt_trainer"] = create_supervised_tbptt_trainer
    execute(blocks("The model of the examples", "py")[0], namespace)
    model = namespace["Model"](FEATURES, UNITS, batch_first=name == "lightning").double()
    before = make_weights({key: tuple(w.shape) for key, w in model.state_dict().items()})
    model.load_state_dict({key: torch.tensor(w) for key, w in before.items()})
    data = make_data(100)
    xs, targets = map(torch.tensor, data)
    namespace |= {"model": model, "xs": xs, "targets": targets}
    execute(blocks(SECTIONS[name], "py")[0], namespace | {"batches": batches_of(name, xs, targets)})
    after = {key: w.numpy().copy() for key, w in model.state_dict().items()}
    versions = f"torch {torch.__version__}"
    if name == "ignite":
        versions += f", pytorch-ignite {ignite.__version__}"
    if name == "lightning" and importlib.util.find_spec("pytorch_lightning"):
        model.load_state_dict({key: torch.tensor(w) for key, w in before.items()})
        versions += f", pytorch-lightning {train_with_old_lightning(model, xs, targets)}"
        assert all((model.state_dict()[key].numpy() == w).all() for key, w in after.items())
    return data, before, after, versions


def train_with_old_lightning(model, xs, targets):
    """The same with the attribute that Lightning 2.0 removed; returns the version."""
    import pytorch_lightning
    import torch

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model
            self.truncated_bptt_steps = 5

        def training_step(self, batch, batch_idx, hiddens):
            outputs, hiddens = self.model(batch[0], hiddens)
            return {"loss": torch.nn.functional.mse_loss(outputs, batch[1]), "hiddens": hiddens}

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    quiet = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
    options = {"max_epochs": 1, "accelerator": "cpu"} | dict.fromkeys(quiet, False)
    batches = batches_of("lightning", xs, targets)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    pytorch_lightning.Trainer(**options).fit(Module(), loader)
    return pytorch_lightning.__version__


def record_keras():
    """Two epochs of ten windows, in float32."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    data = make_data(50)
    windows, window_targets = (
        np.concatenate(np.split(part.swapaxes(0, 1), len(part) // 5, axis=1)) for part in data
    )
    shapes = [(FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,), (UNITS, 1), (1,)]
    before = make_weights({str(i): shape for i, shape in enumerate(shapes)})
    namespace = {"keras": keras, "rows": ROWS, "features": FEATURES, "units": UNITS}
    namespace |= {"windows": windows, "window_targets": window_targets}
    namespace["weights"] = list(before.values())
    execute(blocks(SECTIONS["keras"], "py")[0], namespace)
    after = {str(i): w for i, w in enumerate(namespace["model"].get_weights())}
    backend = importlib.import_module(keras.backend.backend())
    versions = f"keras {keras.__version__}, {backend.__name__} {backend.__version__}"
    return data, before, after, versions


def record(name, folder):
    (xs, targets), before, after, versions = (
        record_keras() if name == "keras" else record_torch(name)
    )
    arrays = {"xs": xs, "targets": targets, "versions": np.array(versions)}
    arrays |= {f"before/{key}": w for key, w in before.items()}
    arrays |= {f"after/{key}": w for key, w in after.items()}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    print(f"{name}: {versions}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=["pytorch", "lightning", "ignite", "keras"])
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder of the .npz files")
    arguments = parser.parse_args(sys.argv[1:])
    for name in arguments.names:
        record(name, arguments.to)
