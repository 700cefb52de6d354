"""Which of other people's architectures load, and whether their gradients are right.

    pip install --no-deps timm transformers tokenizers huggingface_hub
    python benchmarks/zoo.py timm               # the smallest model of each module
    python benchmarks/zoo.py timm resnet18 vit_tiny_patch16_224
    python benchmarks/zoo.py transformers       # small ones, from configurations

Weights are random, those that begin as zeros or ones too. Each model has a process of its own; a
line says what it came to: the largest error of the scores, and of the gradient to the input beside
torch's in float64, both over the largest value, and the ledger's closure error under epsilon; or
why relprop refuses it. What is spread over torchvision in timm is not needed and replaced by
nothing. (torch's own batch norm, which in eval mode gives wrong gradients where the gradient's
memory is permuted, seen in 2.13, is written out for the comparison.)
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import subprocess
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop

WORDS, LENGTH = 50, 12
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CAUSAL = {**TEXT, "num_key_value_heads": 2, "head_dim": 8, "use_cache": False}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TRANSFORMERS = {
    **{
        name: (f"{name}ForSequenceClassification", TEXT)
        for name in ("Bert", "Roberta", "Electra", "Albert", "DebertaV2", "MPNet", "ModernBert")
    },
    "RoFormer": ("RoFormerForSequenceClassification", TEXT),
    "SqueezeBert": ("SqueezeBertForSequenceClassification", {**TEXT, "embedding_size": 32}),
    **{
        name: (f"{name}ForCausalLM", CAUSAL)
        for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Phi", "GPTNeoX", "Mixtral")
    },
    "GPT2": (
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": WORDS, "use_cache": False},
    ),
    "DistilBert": (
        "DistilBertForSequenceClassification",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": WORDS},
    ),
    **{
        name: (f"{name}ForImageClassification", VISION)
        for name in ("ViT", "DeiT", "Beit", "Dinov2", "ViTMSN", "IJepa")
    },
    **{
        name: (f"{name}ForImageClassification", {"image_size": 224})
        for name in ("Swin", "Swinv2", "ConvNext", "ConvNextV2", "ResNet", "Segformer", "Levit")
    },
}
"""Models by the name of their configuration."""


class _Nothing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any module of torchvision, with a class for any name."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = _placeholder  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Kind(type):
    def __getattr__(cls, name: str) -> Any:
        return _placeholder(name)


def _placeholder(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Kind(name, (nn.Module,), {})


def timm_models() -> list[str]:
    """The model of each module that has the fewest parameters."""
    import timm

    chosen = []
    for module in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=module):
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        if sizes:
            chosen.append(min(sizes, key=lambda name: sizes[name]))
    return chosen


def timm_model(name: str) -> tuple[nn.Module, Tensor]:
    import timm

    module = timm.create_model(name)
    return module, torch.randn(1, *module.default_cfg["input_size"])


class Scores(nn.Module):
    """The scores of a model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def transformers_model(name: str) -> tuple[nn.Module, Tensor]:
    import transformers

    kind, settings = TRANSFORMERS[name]
    module = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**settings))
    if "vocab_size" in settings:
        return Scores(module), torch.randint(3, WORDS, (1, LENGTH))
    size = settings["image_size"]
    return Scores(module), torch.randn(1, 3, size, size)


MODELS = {"timm": timm_model, "transformers": transformers_model}


def scramble(module: nn.Module) -> None:
    """Random numbers for all that begins as one number, and for variances."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        with torch.no_grad():
            if "running_var" in name:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif (tensor == tensor.flatten()[0]).all():
                tensor.copy_(tensor.flatten()[0].round() + 0.2 * torch.randn_like(tensor))


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch's in eval mode, written out."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    factor = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = (0.0 if bias is None else bias) - mean * factor
    return x * factor.reshape(shape) + shift.reshape(shape)


def examine(library: str, name: str) -> str:
    """What a model came to, in words."""
    torch.manual_seed(0)
    module, x = MODELS[library](name)
    module.eval()
    scramble(module)
    try:
        model = relprop.load(module, x)
    except (ValueError, relprop.UnsupportedOperatorError) as error:
        return "refused: " + " ".join(str(error).split())[:300]
    explainer = relprop.Explainer(model, "epsilon")
    scores = explainer.forward(x.numpy())
    weights = np.random.default_rng(0).normal(size=scores.shape).astype(np.float32)
    closure = explainer(x.numpy(), weights).ledger.closure_error.max()
    F.batch_norm = torch.batch_norm = batch_norm
    module.double()
    given = x.double().requires_grad_() if x.is_floating_point() else x
    truth = module(given)
    error = abs(scores - truth.detach().numpy()).max() / float(truth.abs().max())
    words = f"scores {error:.1e}, closure {closure:.1e}"
    if x.is_floating_point():
        (gradient,) = torch.autograd.grad(truth, given, torch.from_numpy(weights).double())
        found = relprop.Explainer(model, "gradient")(x.numpy(), weights).relevance
        error = abs(found - gradient.numpy()).max() / float(gradient.abs().max())
        words += f", gradient {error:.1e}"
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("library", choices=MODELS)
    parser.add_argument("names", nargs="*", help="models; by default one of each kind")
    parser.add_argument("--here", action="store_true", help="in this process")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.meta_path.insert(0, _Nothing())
    if arguments.here:
        for name in arguments.names:
            print(f"{name}: {examine(arguments.library, name)}", flush=True)
        return
    names = arguments.names or (
        timm_models() if arguments.library == "timm" else list(TRANSFORMERS)
    )
    for name in names:
        command = [sys.executable, __file__, arguments.library, name, "--here"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = f"{name}: failed: {done.stderr.strip().splitlines()[-1:]}"
        print(done.stdout.strip() if done.returncode == 0 else failed, flush=True)


if __name__ == "__main__":
    main()
