# SPDX-License-Identifier: Apache-2.0
"""MST++ in PyTorch, as published (Cai et al., CVPRW 2022): the peer that mstpp is compared with.

Module names are those of the official checkpoints, so that these load as they are. Tensors are
N x C x H x W between blocks; c is 31 at full resolution and doubles at each level down.
"""

import re

import torch
from torch import nn
from torch.nn import functional as F


class SpectralAttention(nn.Module):
    """S-MSA: attention between channels, one head for every `width` of them."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.heads = channels // width
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.rescale = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.proj = nn.Linear(channels, channels)
        self.pos_emb = nn.Sequential(_depthwise(channels), nn.GELU(), _depthwise(channels))

    def forward(self, x):
        n, c, h, w = x.shape
        pixels = x.flatten(2).transpose(1, 2)  # N x HW x C
        v = self.to_v(pixels)
        # Each head's channels as rows over all pixels: N x heads x width x HW.
        q, k, v_rows = (
            t.transpose(1, 2).reshape(n, self.heads, c // self.heads, h * w)
            for t in (self.to_q(pixels), self.to_k(pixels), v)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (k @ q.transpose(-2, -1) * self.rescale).softmax(dim=-1)
        mixed = (attention @ v_rows).reshape(n, c, h * w).transpose(1, 2)
        spatial = self.pos_emb(v.transpose(1, 2).reshape(n, c, h, w))
        return self.proj(mixed).transpose(1, 2).reshape(n, c, h, w) + spatial


class FeedForward(nn.Module):
    """LayerNorm over a pixel's channels, then 1x1, GELU, depthwise 3x3, GELU, 1x1."""

    class _Net(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            hidden = 4 * channels
            self.net = nn.Sequential(
                nn.Conv2d(channels, hidden, 1, bias=False),
                nn.GELU(),
                _depthwise(hidden),
                nn.GELU(),
                nn.Conv2d(hidden, channels, 1, bias=False),
            )

    def __init__(self, channels: int):
        super().__init__()
        self.fn = self._Net(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return self.fn.net(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class AttentionBlocks(nn.Module):
    """SAB: pairs of S-MSA and FFN, each added to what it reads."""

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([SpectralAttention(channels, width), FeedForward(channels)])
            for _ in range(blocks)
        )

    def forward(self, x):
        for attention, feed_forward in self.blocks:
            x = x + attention(x)
            x = x + feed_forward(x)
        return x


class SingleStage(nn.Module):
    """One U-shaped transformer. `blocks` counts them by level, the bottleneck last."""

    def __init__(self, bands: int, blocks: list[int]):
        super().__init__()
        levels = len(blocks) - 1
        self.embedding = _conv3x3(bands, bands)
        self.encoder_layers = nn.ModuleList()
        for i in range(levels):
            c = bands << i
            down = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False)
            self.encoder_layers.append(nn.ModuleList([AttentionBlocks(c, bands, blocks[i]), down]))
        self.bottleneck = AttentionBlocks(bands << levels, bands, blocks[-1])
        self.decoder_layers = nn.ModuleList()
        for i in reversed(range(levels)):
            c = bands << i
            up = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
            fusion = nn.Conv2d(2 * c, c, 1, bias=False)
            self.decoder_layers.append(
                nn.ModuleList([up, fusion, AttentionBlocks(c, bands, blocks[i])])
            )
        self.mapping = _conv3x3(bands, bands)

    def forward(self, y):
        x = self.embedding(y)
        skips = []
        for blocks, down in self.encoder_layers:
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.bottleneck(x)
        for up, fusion, blocks in self.decoder_layers:
            x = blocks(fusion(torch.cat([up(x), skips.pop()], dim=1)))
        return self.mapping(x) + y


class MstPlusPlus(nn.Module):
    """RGB, N x 3 x H x W, to N x bands x H x W; padded by reflection to multiples of 8 inside."""

    def __init__(self, in_channels: int = 3, bands: int = 31, stages: int = 3, blocks=(1, 1, 1)):
        super().__init__()
        self.conv_in = _conv3x3(in_channels, bands)
        self.body = nn.Sequential(*(SingleStage(bands, list(blocks)) for _ in range(stages)))
        self.conv_out = _conv3x3(bands, bands)

    def forward(self, rgb):
        h, w = rgb.shape[-2:]
        x = self.conv_in(F.pad(rgb, (0, -w % 8, 0, -h % 8), mode="reflect"))
        return (self.conv_out(self.body(x)) + x)[..., :h, :w]


def _conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def load(path: str) -> MstPlusPlus:
    """The network of a .pth or .safetensors file; its shape follows from the tensors' names."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}

    def count(prefix: str) -> int:
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        return len({m[1] for m in map(pattern.match, state) if m})

    bands, in_channels = state["conv_in.weight"].shape[:2]
    levels = count("body.0.encoder_layers.")
    blocks = [count(f"body.0.encoder_layers.{i}.0.blocks.") for i in range(levels)]
    blocks.append(count("body.0.bottleneck.blocks."))
    model = MstPlusPlus(in_channels, bands, count("body."), blocks)
    model.load_state_dict(state)
    return model.eval()
