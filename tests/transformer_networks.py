"""Small transformers of the families that people use, written as their papers' code is."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (3, 8, 8)
WIDTH = 8
HEADS = 2


class Attention(nn.Module):
    """Heads as timm has them: one layer for queries, keys and values, in an axis of their own."""

    def __init__(self, bias: bool = True, fused: bool = True) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.fused = fused

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            scores = (q * (width // HEADS) ** -0.5) @ k.transpose(-2, -1)
            x = (scores if bias is None else scores + bias).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Norms before attention and before two layers, each around a shortcut."""

    def __init__(self, bias: bool = True, fused: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, bias=bias) for _ in range(2))
        self.attention = Attention(bias, fused)
        wide = 2 * WIDTH
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, wide, bias=bias), nn.GELU(), nn.Linear(wide, WIDTH, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.layers(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions and blocks."""

    def __init__(self, bias: bool = True, fused: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4, bias=bias)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if bias else None
        self.positions = nn.Parameter(torch.randn(1, 5, WIDTH)) if bias else None
        self.blocks = nn.Sequential(*(Block(bias, fused) for _ in range(2)))
        self.norm = nn.LayerNorm(WIDTH, bias=bias)
        self.head = nn.Linear(WIDTH, 4, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, then layers on the channels of every pixel, behind them a scale."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=bias)
        self.norm = nn.LayerNorm(3, eps=1e-6, bias=bias)
        self.widen, self.narrow = nn.Linear(3, 12, bias=bias), nn.Linear(12, 3, bias=bias)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.widen(y)))
        return x + y.permute(0, 3, 1, 2)


class Windows(nn.Module):
    """Attention within windows of 4 x 4 that are shifted, with a bias for relative positions."""

    def __init__(self, fused: bool = False, side: int = 4, shift: int = 2) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, WIDTH, 1), nn.LayerNorm(WIDTH)
        self.attention, self.head = Attention(fused=fused), nn.Linear(WIDTH, 4)
        self.side, self.shift = side, shift
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, HEADS))
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([rows, columns]).flatten(1)
        apart = places[:, :, None] - places[:, None] + side - 1
        self.register_buffer("index", apart[0] * (2 * side - 1) + apart[1])
        self.register_buffer("mask", self.parts_apart())

    def parts_apart(self) -> Tensor:
        """What keeps parts of a window apart that the shift has brought together."""
        image = torch.zeros(8, 8)
        cuts = (slice(0, -self.side), slice(-self.side, -self.shift), slice(-self.shift, None))
        for number, (rows, columns) in enumerate((a, b) for a in cuts for b in cuts):
            image[rows, columns] = number
        parts = self.split(image[None, :, :, None]).squeeze(2)
        return torch.where(parts[:, None] != parts[:, :, None], -100.0, 0.0)

    def split(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) as (batch x windows, places, channels)."""
        batch, height, width, channels = x.shape
        x = x.view(batch, height // self.side, self.side, width // self.side, self.side, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.side**2, channels)

    def attend(self, x: Tensor) -> Tensor:
        """Attention in every window; each window's mask beside the bias of all."""
        windows, length, width = x.shape
        qkv = self.attention.qkv(x).reshape(windows, length, 3, HEADS, width // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q * (width // HEADS) ** -0.5 @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0)
        count = self.mask.shape[0]
        scores = scores.view(-1, count, HEADS, length, length) + self.mask[None, :, None]
        x = (scores.view(-1, HEADS, length, length).softmax(-1) @ v).transpose(1, 2)
        return self.attention.out(x.reshape(windows, length, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        _, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        y = self.attend(self.split(y))
        y = y.view(-1, height // self.side, width // self.side, self.side, self.side, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return self.head(x.mean((1, 2)))


class Decoder(nn.Module):
    """Tokens, positions and a block in which every place sees only those before it."""

    def __init__(self, spelling: str = "fill") -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, WIDTH), nn.Embedding(6, WIDTH)
        self.norm, self.final = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head, self.spelling = nn.Linear(WIDTH, 10, bias=False), spelling
        self.register_buffer("seen", torch.tril(torch.ones(6, 6)).view(1, 1, 6, 6))

    def forward(self, ids: Tensor) -> Tensor:
        batch, length = ids.size()
        x = self.words(ids) + self.places(torch.arange(length))
        x = x + self.attend(self.norm(x), batch, length)
        return self.head(self.final(x))[:, -1]

    def attend(self, x: Tensor, batch: int, length: int) -> Tensor:
        """Attention under the mask, in one of the ways that it is written."""
        q, k, v = (
            part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(x).split(WIDTH, 2)
        )
        if self.spelling == "causal":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
            seen = self.seen[:, :, :length, :length]
            if self.spelling == "fill":
                scores = scores.masked_fill(seen == 0, float("-inf"))
            elif self.spelling == "where":
                scores = torch.where(seen.bool(), scores, torch.finfo(scores.dtype).min)
            else:
                scores = scores + torch.full((length, length), float("-inf")).triu(1)
            y = F.softmax(scores, dim=-1) @ v
        return self.out(y.transpose(1, 2).contiguous().view(batch, length, WIDTH))


def encoder(bias: bool = True) -> nn.Module:
    """Two of torch's own layers, which would take a shortcut of their own in eval mode."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, bias=bias)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=bias)


TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit": (VisionTransformer, IMAGE),
    "vit, spelled out": (lambda: VisionTransformer(fused=False), IMAGE),
    "convnext": (ConvNeXtBlock, IMAGE),
    "windows": (Windows, IMAGE),
    "encoder": (encoder, (5, WIDTH)),
}
"""Name to factory and input shape without the batch axis."""


def transformer(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """One of them in eval mode and three samples, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory, shape = TRANSFORMERS[name]
        return factory().eval(), torch.randn(3, *shape)
