"""Networks of the structure of NVlabs' stylegan2-ada-pytorch, small, in own code: names, call style, what is in place.

Written from the papers (StyleGAN2, StyleGAN2-ADA) and what is documented of the released networks. Their ops are the
slow ones beside this file until ``mmif.compat.stylegan.patch`` swaps them.
"""

import torch
from compat import slow_ops
from torch import nn

from mmif.ops import setup_filter

GAIN = 0.5**0.5  # of either branch of a residual block


def modulated_conv2d(
    x,
    weight,
    styles,
    noise=None,
    up=1,
    down=1,
    padding=0,
    resample_filter=None,
    demodulate=True,
    flip_weight=True,
    fused_modconv=True,
):
    return slow_ops.modulated(x, weight, styles, noise, up, down, padding, resample_filter, demodulate, flip_weight)


class FullyConnectedLayer(nn.Module):
    def __init__(self, in_features, out_features, activation="linear", lr_multiplier=1.0, bias_init=0.0):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init))
        self.weight_gain, self.bias_gain = lr_multiplier / in_features**0.5, lr_multiplier

    def forward(self, x):
        w, b = self.weight * self.weight_gain, self.bias * self.bias_gain
        if self.activation == "linear":
            return torch.addmm(b[None], x, w.t())
        return slow_ops.bias_act(x.matmul(w.t()), b, act=self.activation)


class Conv2dLayer(nn.Module):
    def __init__(self, in_channels, out_channels, k, bias=True, activation="linear", up=1, down=1, conv_clamp=None):
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp, self.padding = activation, up, down, conv_clamp, k // 2
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, k, k))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = (in_channels * k**2) ** -0.5
        self.act_gain = 2**0.5 if activation == "lrelu" else 1.0

    def forward(self, x, gain=1):
        w = self.weight * self.weight_gain
        x = slow_ops.conv2d_resample(
            x=x,
            w=w.to(x.dtype),
            f=self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        clamp = self.conv_clamp * gain if self.conv_clamp is not None else None
        return slow_ops.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


class MappingNetwork(nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, num_ws):
        super().__init__()
        self.num_ws = num_ws
        self.embed = FullyConnectedLayer(c_dim, w_dim)
        self.fc0 = FullyConnectedLayer(z_dim + w_dim, w_dim, activation="lrelu", lr_multiplier=0.01)
        self.fc1 = FullyConnectedLayer(w_dim, w_dim, activation="lrelu", lr_multiplier=0.01)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z, c):
        x = torch.cat([_unit(z), _unit(self.embed(c))], dim=1)
        x = self.fc1(self.fc0(x))
        if self.training:
            self.w_avg.copy_(x.detach().mean(0).lerp(self.w_avg, 0.995))
        return x[:, None].repeat(1, self.num_ws, 1)


def _unit(x):
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class SynthesisLayer(nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, resolution, up=1, conv_clamp=None):
        super().__init__()
        self.up, self.conv_clamp = up, conv_clamp
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.tensor(0.1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x, w, fused_modconv=True, gain=1):
        styles = self.affine(w)
        x = modulated_conv2d(
            x=x,
            weight=self.weight,
            styles=styles,
            noise=self.noise_const * self.noise_strength,
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            fused_modconv=fused_modconv,
        )
        clamp = self.conv_clamp * gain if self.conv_clamp is not None else None
        return slow_ops.bias_act(x, self.bias.to(x.dtype), act="lrelu", gain=2**0.5 * gain, clamp=clamp)


class ToRGBLayer(nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = in_channels**-0.5

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x=x, weight=self.weight, styles=styles, demodulate=False, fused_modconv=fused_modconv)
        return slow_ops.bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    def __init__(self, in_channels, out_channels, w_dim, resolution, is_last, architecture, conv_clamp):
        super().__init__()
        self.first, self.architecture = in_channels == 0, architecture
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        if self.first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, conv_clamp=conv_clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        if is_last or architecture == "skip":
            self.torgb = ToRGBLayer(out_channels, 3, w_dim, conv_clamp=conv_clamp)
        if not self.first and architecture == "resnet":
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2)

    def forward(self, x, img, ws):
        w_iter = iter(ws.unbind(dim=1))
        if self.first:
            x = self.const[None].repeat(ws.shape[0], 1, 1, 1)
            x = self.conv1(x, next(w_iter))
        elif self.architecture == "resnet":
            y = self.skip(x, gain=GAIN)
            x = self.conv0(x, next(w_iter))
            x = self.conv1(x, next(w_iter), gain=GAIN)
            x = y.add_(x)
        else:
            x = self.conv0(x, next(w_iter))
            x = self.conv1(x, next(w_iter))
        if img is not None:
            img = slow_ops.upsample2d(img, self.resample_filter)
        if hasattr(self, "torgb"):
            y = self.torgb(x, next(w_iter))
            img = img.add_(y) if img is not None else y
        return x, img


class Generator(nn.Module):
    def __init__(self, architecture, z_dim=6, c_dim=3, w_dim=5, resolutions=(4, 8, 16), channels=(6, 5, 4), clamp=256):
        super().__init__()
        blocks, before = [], 0
        for resolution, here in zip(resolutions, channels, strict=True):
            last = resolution == resolutions[-1]
            blocks.append(SynthesisBlock(before, here, w_dim, resolution, last, architecture, clamp))
            before = here
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, num_ws=3)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, z, c):
        ws = self.mapping(z, c)
        x = img = None
        for block in self.blocks:
            x, img = block(x, img, ws)
        return img, ws


class DiscriminatorBlock(nn.Module):
    def __init__(self, in_channels, tmp_channels, out_channels, architecture, conv_clamp):
        super().__init__()
        self.architecture = architecture
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        options = {"activation": "lrelu", "conv_clamp": conv_clamp}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = Conv2dLayer(3, tmp_channels, 1, **options)
        self.conv0 = Conv2dLayer(tmp_channels, tmp_channels, 3, **options)
        self.conv1 = Conv2dLayer(tmp_channels, out_channels, 3, down=2, **options)
        if architecture == "resnet":
            self.skip = Conv2dLayer(tmp_channels, out_channels, 1, bias=False, down=2)

    def forward(self, x, img):
        if hasattr(self, "fromrgb"):
            y = self.fromrgb(img)
            x = x + y if x is not None else y
            img = slow_ops.downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=GAIN)
            x = self.conv0(x)
            x = self.conv1(x, gain=GAIN)
            x = y.add_(x)
        else:
            x = self.conv1(self.conv0(x))
        return x, img


class DiscriminatorEpilogue(nn.Module):
    def __init__(self, in_channels, cmap_dim, resolution, architecture, conv_clamp):
        super().__init__()
        options = {"activation": "lrelu", "conv_clamp": conv_clamp}
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(3, in_channels, 1, activation="lrelu")
        self.conv = Conv2dLayer(in_channels + 1, in_channels, 3, **options)
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation="lrelu")
        self.out = FullyConnectedLayer(in_channels, cmap_dim)

    def forward(self, x, img, cmap):
        if hasattr(self, "fromrgb"):
            x = x + self.fromrgb(img)
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()  # of the minibatch
        x = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], dim=1)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        return (x * cmap).sum(1, keepdim=True) * cmap.shape[1] ** -0.5


class Discriminator(nn.Module):
    def __init__(self, architecture, c_dim=3, channels=(4, 5, 6), clamp=256):
        super().__init__()
        self.b16 = DiscriminatorBlock(0, channels[0], channels[1], architecture, clamp)
        self.b8 = DiscriminatorBlock(channels[1], channels[1], channels[2], architecture, clamp)
        self.b4 = DiscriminatorEpilogue(channels[2], 4, 4, architecture, clamp)
        self.mapping = FullyConnectedLayer(c_dim, 4)

    def forward(self, img, c):
        x, img = self.b16(None, img)
        x, img = self.b8(x, img)
        return self.b4(x, img, _unit(self.mapping(c)))
