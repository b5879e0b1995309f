"""The network once more, slow and obvious: loops over images and windows, only real tokens, explicit softmax.

Takes weights from a SuperTokenTransformer and nothing else but its stem; shares the bicubic resizing of learned grids.
"""

import torch
import torch.nn.functional as F


def layer_norm(x, norm):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def linear(x, layer):
    return x @ layer.weight.T + layer.bias


def mlp(x, layers):
    hidden = linear(x, layers.fc1)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return linear(hidden, layers.fc2)


def scaled(x, layer):
    return x * layer.gamma if hasattr(layer, "gamma") else x


def attend(queries, keys, values, heads):
    """Each [tokens, C]; softmax(q k / sqrt(d)) v for every head and query by itself."""
    width = queries.shape[1] // heads
    rows = []
    for q in queries:
        parts = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = torch.stack([(q[part] * k[part]).sum() for k in keys]) / width**0.5
            weights = scores.exp() / scores.exp().sum()
            parts.append(sum(w * v[part] for w, v in zip(weights, values, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def self_attention(x, attn):
    q, k, v = linear(x, attn.qkv).split(x.shape[1], dim=1)
    return linear(attend(q, k, v, attn.heads), attn.proj)


def block(x, b):
    """One sequence [tokens, C]."""
    x = x + scaled(self_attention(layer_norm(x, b.norm1), b.attn), b.ls1)
    return x + scaled(mlp(layer_norm(x, b.norm2), b.mlp), b.ls2)


def mixed(super_tokens, mixer, gh, gw):
    """What the mixer adds to Super tokens [gh*gw, C] of one image."""
    x = layer_norm(super_tokens, mixer.norm)
    if hasattr(mixer.mix, "conv"):
        kernel, rows = mixer.mix.conv.weight, []
        for r in range(gh):
            for c in range(gw):
                total = mixer.mix.conv.bias
                for dr in (-1, 0, 1):
                    for dc in (-1, 0, 1):
                        if 0 <= r + dr < gh and 0 <= c + dc < gw:
                            total = total + kernel[:, 0, dr + 1, dc + 1] * x[(r + dr) * gw + c + dc]
                rows.append(total)
        x = torch.stack(rows)
    else:
        x = self_attention(x, mixer.mix.attn)
    return scaled(x, mixer.ls)


def grid(learned, rows, columns):
    if learned.weight.shape[2:] == (rows, columns):
        return learned.weight[0]
    return F.interpolate(learned.weight, size=(rows, columns), mode="bicubic", align_corners=False)[0]


def forward(model, images):
    """[B, in_chans, H, W] -> [B, K]"""
    M = model.windows.side
    logits = []
    for patches in model.stem(images):
        _, h, w = patches.shape
        gh, gw = -(-h // M), -(-w // M)
        patches = patches + grid(model.windows.positions, h, w)
        first = grid(model.windows.super_tokens, gh, gw)
        windows = []
        for r in range(gh):
            for c in range(gw):
                tokens = [first[:, r, c]]
                for y in range(r * M, min((r + 1) * M, h)):
                    for x in range(c * M, min((c + 1) * M, w)):
                        tokens.append(patches[:, y, x])
                if model.architecture.token_start == "mean":
                    tokens[0] = tokens[0] + sum(tokens[1:]) / len(tokens[1:])
                windows.append(torch.stack(tokens))
        for layer in model.local_layers:
            windows = [block(tokens, layer.block) for tokens in windows]
            if layer.mixer is not None:
                update = mixed(torch.stack([tokens[0] for tokens in windows]), layer.mixer, gh, gw)
                windows = [
                    torch.cat([tokens[:1] + u[None], tokens[1:]]) for tokens, u in zip(windows, update, strict=True)
                ]
        supers = torch.stack([tokens[0] for tokens in windows])
        for layer in model.global_layers:
            supers = block(supers, layer.block)
            if layer.mixer is not None:
                supers = supers + mixed(supers, layer.mixer, gh, gw)
        supers = layer_norm(supers, model.norm)
        if model.global_pool == "avg":
            pooled = supers.mean(0, keepdim=True)
        else:
            pooled = model.class_token[0]
            if model.architecture.token_start == "mean":
                pooled = pooled + sum(supers) / len(supers)
            for layer in model.class_layers:
                k, v = linear(supers, layer.attn.kv).split(supers.shape[1], dim=1)
                q = linear(layer_norm(pooled, layer.norm1), layer.attn.q)
                pooled = pooled + scaled(linear(attend(q, k, v, layer.attn.heads), layer.attn.proj), layer.ls1)
                pooled = pooled + scaled(mlp(layer_norm(pooled, layer.norm2), layer.mlp), layer.ls2)
            pooled = layer_norm(pooled, model.class_norm)
        logits.append(linear(pooled, model.head)[0])
    return torch.stack(logits)
