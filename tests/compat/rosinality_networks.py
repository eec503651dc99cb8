"""Networks of the structure of rosinality's stylegan2-pytorch, small, in own code: names, call style, order of layers.

Written from the StyleGAN2 paper and what is documented of the released networks. Their ops are the slow ones here until
``mmif.compat.stylegan.patch`` swaps them.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from compat import slow_ops
from torch import nn


def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2**0.5):
    return slow_ops.bias_act(input, bias, act="lrelu", alpha=negative_slope, gain=scale)


def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
    return slow_ops.upfirdn2d(input, kernel, up, down, (*pad, *pad))


def make_kernel(taps):
    k = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(k, k) / k.sum() ** 2


class FusedLeakyReLU(nn.Module):
    def __init__(self, channel):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel))

    def forward(self, input):
        return fused_leaky_relu(input, self.bias)


class Resample(nn.Module):
    """Upsample, Downsample and Blur, which differ in their numbers."""

    def __init__(self, factor, up=1, down=1, pad=(0, 0)):
        super().__init__()
        self.register_buffer("kernel", make_kernel([1, 3, 3, 1]) * factor)
        self.options = {"up": up, "down": down, "pad": pad}

    def forward(self, input):
        return upfirdn2d(input, self.kernel, **self.options)


class EqualConv2d(nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channel, in_channel, kernel_size, kernel_size))
        self.scale = (in_channel * kernel_size**2) ** -0.5
        self.stride, self.padding = stride, padding
        self.bias = nn.Parameter(torch.zeros(out_channel)) if bias else None

    def forward(self, input):
        return F.conv2d(input, self.weight * self.scale, self.bias, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    def __init__(self, in_dim, out_dim, bias_init=0.0, lr_mul=1.0, activation=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr_mul)
        self.bias = nn.Parameter(torch.full([out_dim], bias_init))
        self.scale, self.lr_mul, self.activation = in_dim**-0.5 * lr_mul, lr_mul, activation

    def forward(self, input):
        if self.activation:
            return fused_leaky_relu(F.linear(input, self.weight * self.scale), self.bias * self.lr_mul)
        return F.linear(input, self.weight * self.scale, self.bias * self.lr_mul)


class ModulatedConv2d(nn.Module):
    def __init__(self, in_channel, out_channel, kernel_size, style_dim, demodulate=True, upsample=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_channel, in_channel, kernel_size, kernel_size))
        self.scale, self.padding = (in_channel * kernel_size**2) ** -0.5, kernel_size // 2
        self.modulation = EqualLinear(style_dim, in_channel, bias_init=1.0)
        self.demodulate = demodulate
        self.blur = Resample(4.0, pad=(1, 1)) if upsample else None

    def forward(self, input, style):
        n, c, height, width = input.shape
        weight = self.scale * self.weight * self.modulation(style).view(n, 1, c, 1, 1)
        if self.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        input = input.view(1, n * c, height, width)
        if self.blur is None:
            out = F.conv2d(input, weight.flatten(0, 1), padding=self.padding, groups=n)
            return out.view(n, -1, height, width)
        out = F.conv_transpose2d(input, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
        return self.blur(out.view(n, -1, *out.shape[2:]))


class StyledConv(nn.Module):
    def __init__(self, in_channel, out_channel, style_dim, upsample=False):
        super().__init__()
        self.conv = ModulatedConv2d(in_channel, out_channel, 3, style_dim, upsample=upsample)
        self.noise_weight = nn.Parameter(torch.full([1], 0.1))
        self.activate = FusedLeakyReLU(out_channel)

    def forward(self, input, style, noise):
        return self.activate(self.conv(input, style) + self.noise_weight * noise)


class ToRGB(nn.Module):
    def __init__(self, in_channel, style_dim, upsample=True):
        super().__init__()
        self.upsample = Resample(4.0, up=2, pad=(2, 1)) if upsample else None
        self.conv = ModulatedConv2d(in_channel, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, input, style, skip=None):
        out = self.conv(input, style) + self.bias
        return out if skip is None else out + self.upsample(skip)


class Generator(nn.Module):
    def __init__(self, style_dim=5, channels=(6, 5, 4)):
        super().__init__()
        self.style = nn.Sequential(*(EqualLinear(style_dim, style_dim, 0.0, 0.01, "fused_lrelu") for _ in range(2)))
        self.input = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim, upsample=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for before, here in pairwise(channels):
            self.convs.append(StyledConv(before, here, style_dim, upsample=True))
            self.convs.append(StyledConv(here, here, style_dim))
            self.to_rgbs.append(ToRGB(here, style_dim))
        for i, size in enumerate((4, 8, 8, 16, 16)):
            self.register_buffer(f"noise_{i}", torch.randn(1, 1, size, size))

    def forward(self, z, c):
        w = self.style(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        out = self.conv1(self.input.repeat(len(z), 1, 1, 1), w, self.noise_0)
        skip = self.to_rgb1(out, w)
        for i, to_rgb in enumerate(self.to_rgbs):
            out = self.convs[2 * i](out, w, getattr(self, f"noise_{2 * i + 1}"))
            out = self.convs[2 * i + 1](out, w, getattr(self, f"noise_{2 * i + 2}"))
            skip = to_rgb(out, w, skip)
        return skip, w


class ConvLayer(nn.Sequential):
    def __init__(self, in_channel, out_channel, kernel_size, downsample=False, activate=True, bias=True):
        layers = []
        if downsample:
            before = 4 - 2 + kernel_size - 1
            layers.append(Resample(1.0, pad=((before + 1) // 2, before // 2)))
        stride, padding = (2, 0) if downsample else (1, kernel_size // 2)
        layers.append(EqualConv2d(in_channel, out_channel, kernel_size, stride, padding, bias=bias and not activate))
        super().__init__(*layers, *([FusedLeakyReLU(out_channel)] if activate else []))


class ResBlock(nn.Module):
    def __init__(self, in_channel, out_channel):
        super().__init__()
        self.conv1 = ConvLayer(in_channel, in_channel, 3)
        self.conv2 = ConvLayer(in_channel, out_channel, 3, downsample=True)
        self.skip = ConvLayer(in_channel, out_channel, 1, downsample=True, activate=False, bias=False)

    def forward(self, input):
        return (self.conv2(self.conv1(input)) + self.skip(input)) / 2**0.5


class Discriminator(nn.Module):
    def __init__(self, channels=(4, 5, 6)):
        super().__init__()
        blocks = [ResBlock(before, here) for before, here in pairwise(channels)]
        self.convs = nn.Sequential(ConvLayer(3, channels[0], 1), *blocks)
        self.final_conv = ConvLayer(channels[-1] + 1, channels[-1], 3)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[-1] * 16, channels[-1], activation="fused_lrelu"), EqualLinear(channels[-1], 1)
        )

    def forward(self, input, c):
        out = self.convs(input)
        deviation = (out.var(0, unbiased=False) + 1e-8).sqrt().mean()
        out = torch.cat([out, deviation.expand(len(out), 1, *out.shape[2:])], 1)
        return self.final_linear(self.final_conv(out).flatten(1))
