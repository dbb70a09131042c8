"""Kinds of GPUs, from their data sheets, and a number of them as "8xH100-80G".

Memory is that in the name, in units of 10^9 bytes. A card has about 7% more; the CUDA context and what the allocator
cannot use go there. `peers` is NVLink's speed in one direction, or what PCIe reaches. `network` is the port that a DGX
has for each GPU (200 Gb/s with A100, 400 Gb/s since then); for the cards without NVLink it is an assumption, a port of
200 Gb/s for 8 of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from editr1.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A kind of GPU.

    Attributes:
        name: As in `--gpus`.
        memory: GB.
        tflops: Dense products in bfloat16 with sums in float32, 10^12 operations per second.
        host: GB per second from main memory.
        peers: GB per second of a GPU to others of its machine.
        network: GB per second of a GPU to other machines.
    """

    name: str
    memory: float
    tflops: float
    host: float
    peers: float
    network: float


KINDS = {
    kind.name: kind
    for kind in (
        Kind("RTX3090-24G", 24, 71, 25, 25, 3),
        Kind("RTX4090-24G", 24, 165, 25, 25, 3),
        Kind("RTX5090-32G", 32, 209, 50, 50, 3),
        Kind("A6000-48G", 48, 155, 25, 25, 3),
        Kind("L40S-48G", 48, 362, 25, 25, 3),
        Kind("A100-40G", 40, 312, 25, 300, 25),
        Kind("A100-80G", 80, 312, 25, 300, 25),
        Kind("H100-80G", 80, 989, 50, 450, 50),
        Kind("H200-141G", 141, 989, 50, 450, 50),
        Kind("B200-180G", 180, 2250, 50, 900, 50),
    )
}


@dataclass(frozen=True)
class Gpus:
    """GPUs of one kind: `count` in a node, in `nodes` nodes."""

    kind: Kind
    count: int
    nodes: int = 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.count * self.nodes

    def weights(self, ranks: int) -> float:
        """GB per second that each of some neighbours gets of what they hold; all GPUs of a node share its network."""
        return self.kind.peers if ranks <= self.count else min(self.kind.peers, self.count * self.kind.network)

    def tokens(self, ranks: int) -> float:
        """GB per second that each of some neighbours gets of what is for it alone."""
        return self.kind.peers if ranks <= self.count else self.kind.network

    def __str__(self) -> str:
        nodes = f"{self.nodes} x " if self.nodes > 1 else ""
        return f"{nodes}{self.count}x{self.kind.name}"


def parse_gpus(text: str, nodes: int = 1) -> Gpus:
    """GPUs of a node, as "8xH100-80G", or "H100-80G" for one.

    Raises:
        UserError: There is no such kind.
    """
    match = re.fullmatch(r"(?:([1-9][0-9]{0,3})x)?(\S+)", text)
    kind = next((each for each in KINDS.values() if match and each.name.lower() == match[2].lower()), None)
    if match is None or kind is None:
        raise UserError(f"--gpus {text!r}: give a number and a kind, as 8xH100-80G; kinds are {', '.join(KINDS)}")
    return Gpus(kind, int(match[1] or 1), nodes)
