"""Trains the model from a corpus; resumes from its last checkpoint when there is one."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from data import read_rows
from model import Config, Wren
from optimiser import Muon, scheduled


def loss_of(model: torch.nn.Module, tokens: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the targets' cross entropies, in nats."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens[:, :-1])
    each = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (each * weights[:, 1:].flatten()).sum()


def save(path: Path, state: dict) -> None:
    """Writes a checkpoint beside `path`, then renames it over."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint and the packed corpus")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--rows", type=int, default=16, help="rows of 256 tokens in a step")
    parser.add_argument("--micro-rows", type=int, default=16, help="rows in one backward pass")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="Muon's learning rate")
    parser.add_argument("--other-rate", type=float, default=0.004, help="AdamW's learning rate")
    parser.add_argument("--decay", type=float, default=0.47, help="last share of the steps, over which rates fall to 0")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    packed = options.run / "packed.npz"
    if not packed.exists():
        tokens, weights = read_rows(options.corpus, Tokenizer.from_file(str(options.tokenizer)))
        np.savez(packed, tokens=tokens, weights=weights)
    with np.load(packed) as found:
        tokens, weights = found["tokens"], found["weights"]
    order = np.random.default_rng(options.seed).permutation(len(tokens))
    print(f"{len(tokens)} rows, {len(tokens) * 256 / 1e6:.1f}M tokens", flush=True)

    config = Config()
    model = Wren(config)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    muon = Muon(matrices, rate=options.matrix_rate)
    adam = torch.optim.AdamW(others, lr=options.other_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    adam.param_groups[0]["initial_lr"] = options.other_rate
    checkpoint, first_step, earlier_s = options.run / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        first_step, earlier_s = state["step"], state["elapsed_s"]
        print(f"resumed at step {first_step}", flush=True)
    compute_loss = torch.compile(loss_of) if options.compile else loss_of

    started, mark, mean_loss = time.monotonic(), time.monotonic(), 0.0
    for step in range(first_step, options.steps):
        scale = scheduled(step, options.steps, options.decay)
        chosen = order[np.arange(step * options.rows, (step + 1) * options.rows) % len(order)]
        batch = torch.from_numpy(tokens[chosen].astype(np.int64))
        shares = torch.from_numpy(weights[chosen].astype(np.float32))
        total = shares[:, 1:].sum()
        step_loss = 0.0
        for part, part_shares in zip(batch.split(options.micro_rows), shares.split(options.micro_rows)):
            loss = compute_loss(model, part, part_shares) / total
            loss.backward()
            step_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for group in (*muon.param_groups, *adam.param_groups):
            group["lr"] = group["initial_lr"] * scale
        muon.step()
        adam.step()
        muon.zero_grad()
        adam.zero_grad()
        mean_loss += step_loss
        done = step + 1
        if done % 20 == 0:
            speed = 20 * options.rows * 256 / (time.monotonic() - mark)
            elapsed_s = earlier_s + time.monotonic() - started
            print(f"step {done} loss {mean_loss / 20:.4f} rate {scale:.3f} {speed:.0f} tokens/s {elapsed_s:.0f} s", flush=True)
            mark, mean_loss = time.monotonic(), 0.0
        if done % options.save_every == 0 or done == options.steps:
            elapsed_s = earlier_s + time.monotonic() - started
            state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict()}
            save(checkpoint, {**state, "step": done, "elapsed_s": elapsed_s})


if __name__ == "__main__":
    main()
